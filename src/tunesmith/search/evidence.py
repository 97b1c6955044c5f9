"""What starts and adjustments of a closed loop may read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith.core.registry import find
from tunesmith.search.changes import Change
from tunesmith.search.designs import Design
from tunesmith.search.errors_seen import Errors
from tunesmith.tasks.labelling import LabelTask


@dataclass(frozen=True)
class Known:
    """The task at hand. Nothing here comes from test.

    Args:
        labels: of the task; none where rows have no label.
        counts: training rows of each. [count]
        rows: that train. [count]
        metric: that decides.
        higher_is_better: its direction.
        share: whether it lies between 0 and 1.
        texts: training texts by label, where the model reads text.
        limit: longest row that the model can read. [tokens]
        has_biases: whether the model has biases that could be trained.
    """

    labels: Sequence[str]
    counts: Sequence[int]
    rows: int
    metric: str
    higher_is_better: bool
    share: bool
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    limit: int = 0
    has_biases: bool = True

    @property
    def per_label(self) -> float:
        """Mean rows per label. [count]"""
        return self.rows / max(1, len(self.labels))


@dataclass(frozen=True)
class Evidence:
    """What is known when the next round is planned.

    Args:
        known: of the task.
        values: the present best trial's recipe, every key.
        errors: of that trial.
        promising: changes of the latest round that were better than it, though no test showed a gain.
        design: searches a prompt that is aimed at some labels; None where the loop leaves that out.
    """

    known: Known
    values: Mapping[str, Any]
    errors: Errors
    promising: Sequence[Change] = ()
    design: Callable[[Sequence[str]], Design] | None = None

    @property
    def task(self) -> Mapping[str, Any]:
        """Name and settings of the task."""
        found: Mapping[str, Any] = self.values["task"]
        return found

    @property
    def method(self) -> Mapping[str, Any]:
        """Name and settings of the method."""
        found: Mapping[str, Any] = self.values["method"]
        return found

    @property
    def training(self) -> Mapping[str, Any]:
        """The training."""
        found: Mapping[str, Any] = self.values["training"]
        return found

    @property
    def headed(self) -> bool:
        """Whether a head of our own answers, whose losses and start are settings."""
        return has_head(self.task["name"])

    @property
    def trains(self) -> bool:
        """Whether the method trains anything."""
        return bool(find("methods", self.method["name"]).trains)

    @property
    def gap(self) -> float:
        """How much better rows do that trained."""
        return self.errors.gap(self.known.higher_is_better)

    @property
    def learned(self) -> bool:
        """Whether nearly all that trained is answered well: what is wrong elsewhere was not learned, but not missed."""
        return self.known.share and self.errors.trained_score >= 0.97

    def scores(self) -> str:
        """Word how rows that trained do beside those of validation."""
        form = ".1%" if self.known.share else ".3f"
        return (
            f"{self.known.metric} is {self.errors.trained_score:{form}} on rows that trained and "
            f"{self.errors.score:{form}} on validation"
        )


def has_head(task: str) -> bool:
    """Say whether a task has a head of our own, whose kind, start and losses are settings.

    Args:
        task: its name.
    Returns:
        True for classification on a model's output.
    """
    kind = find("tasks", task)
    return issubclass(kind, LabelTask) and bool(kind.own_settings)
