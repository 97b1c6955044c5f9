"""What a trial of a study was, and what came out."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from tunesmith.evaluation.statistics import Estimate, cheapest_near_best

State = Literal["complete", "stopped", "failed"]


@dataclass(frozen=True)
class Outcome:
    """What came out of a trial.

    Args:
        state: complete; stopped early, because others were better; or failed.
        reason: why it failed, or why it left a round of the closed loop; empty otherwise.
        value: the deciding score on validation, of the best epoch; None where it failed.
        loss: validation loss there; decides among equal values.
        scores: on validation, by metric: value, low, high.
        best_epoch: whose state was scored. [count]
        epochs: trained. [count]
        trainable: numbers trained. [count]
        seconds: of training, its share of its pass by rows.
        folds: (epoch, deciding score) of every epoch that was scored, for each fold; empty without folds.
    """

    state: State
    reason: str = ""
    value: float | None = None
    loss: float | None = None
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    best_epoch: int = 0
    epochs: int = 0
    trainable: int = 0
    seconds: float = 0.0
    folds: list[list[tuple[int, float]]] = field(default_factory=list)

    def key(self, higher_is_better: bool) -> tuple[float, float]:
        """Return what outcomes are compared by, lower is better: score, loss.

        Args:
            higher_is_better: of the score.
        Returns:
            The key.
        """
        sign = -1 if higher_is_better else 1
        value = math.inf if self.value is None else sign * self.value
        return value, math.inf if self.loss is None else self.loss


@dataclass(frozen=True)
class StudyTrial:
    """One trial of a study.

    Args:
        number: from 0.
        batch: number of the batch it was drawn in, from 0.
        size: trials of that batch. [count]
        parameters: value or label by parameter.
        overrides: `key=value` texts that make the trial's recipe of the study's.
        reports: (order within the batch, epoch, score) of every epoch that was scored.
        ended: seconds of searching when its batch had ended.
        same_as: number of the earlier trial with the same recipe, whose outcome it has; None for most.
        outcome: what came out.
    """

    number: int
    batch: int
    size: int
    parameters: dict[str, Any]
    overrides: list[str]
    reports: list[tuple[int, int, float]]
    ended: float
    same_as: int | None
    outcome: Outcome

    def key(self, higher_is_better: bool) -> tuple[float, float, int]:
        """Return what trials are compared by, lower is better: score, loss, number.

        Args:
            higher_is_better: of the score.
        Returns:
            The key.
        """
        return *self.outcome.key(higher_is_better), self.number

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)

    @classmethod
    def of(cls, values: dict[str, Any]) -> StudyTrial:
        """Read it from plain values.

        Args:
            values: from `plain`.
        Returns:
            The trial.
        """
        reports = [(int(order), int(epoch), float(score)) for order, epoch, score in values["reports"]]
        return cls(**{**values, "reports": reports, "outcome": Outcome(**values["outcome"])})


def best_of(trials: list[StudyTrial], higher_is_better: bool) -> StudyTrial | None:
    """Choose the best trial: by its score, then by its loss, then the earliest.

    Args:
        trials: any.
        higher_is_better: of the deciding score.
    Returns:
        A complete one; None where none is.
    """
    able = [one for one in trials if one.outcome.state == "complete"]
    return min(able, key=lambda one: one.key(higher_is_better), default=None)


def cheapest_of(trials: list[StudyTrial], metric: str, higher_is_better: bool, confidence: float) -> StudyTrial | None:
    """Choose by the one-standard-error rule: of the trials that near the best one, the cheapest.

    The cheapest trains the fewest numbers, then the fewest epochs; seconds do not decide, for they depend on what else
    the machine does, and the same study would end at another trial.

    Args:
        trials: any.
        metric: that decides, with intervals.
        higher_is_better: its direction.
        confidence: of the intervals. [fraction]
    Returns:
        A complete one; None where none is.
    """
    able = [one for one in trials if one.outcome.state == "complete" and one.same_as is None]
    able.sort(key=lambda one: one.key(higher_is_better))
    if not able:
        return None
    scores = [Estimate(**{**one.outcome.scores[metric], "value": one.outcome.value or 0.0}) for one in able]
    costs = [(one.outcome.trainable, one.outcome.epochs) for one in able]
    return able[cheapest_near_best(scores, costs, confidence)]
