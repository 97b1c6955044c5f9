"""What a task is: settings, facts and a few verbs."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from tunesmith.core.settings import Component
from tunesmith.models.backbone import Backbone
from tunesmith.models.delta import Delta
from tunesmith.models.layout import RaggedBatch


class Task(Component):
    """Base of every task. A task's file registers one subclass with `@register("tasks")`."""

    name: ClassVar[str]
    scored_by: ClassVar[tuple[str, ...]] = ("labels",)  # what its metrics and baselines read
    metrics: ClassVar[tuple[str, ...]] = ()
    baselines: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[str] = "text"  # or "images": what a cell of the text column is, or names
    family: ClassVar[str] = "labelling"  # "prompting" or "generating": how its recipes are carried out
    own_settings: ClassVar[tuple[str, ...]] = ()  # that trials of one pass may each have their own of

    @property
    def opens(self) -> str:
        """What of the model is loaded: its "body", or with the head that is "causal" or "masked"."""
        return "body"

    def suited(self, config: Any) -> Task:
        """Settle what depends on the kind of model, before it is loaded.

        Args:
            config: of the model.
        Returns:
            The task; `opens` is decided.
        """
        return self

    def prepare(self, model: nn.Module, facts: dict[str, Any]) -> Task:
        """Fit the task to a model: settle settings left open, switch off parts of the model nobody reads.

        Args:
            model: as loaded, before it is opened.
            facts: what the model folder says about pooling.
        Returns:
            The task with every setting decided.
        """
        raise NotImplementedError

    def read(self, backbone: Backbone, batch: RaggedBatch) -> Tensor:
        """Run the model and take what the loss reads, item by item: a vector per row, or per learned token.

        Args:
            backbone: the model, with the deltas in use.
            batch: R rows.
        Returns:
            (items, D), in the order of the rows; `batch.items` says how many are each row's.
        """
        raise NotImplementedError

    def loss_of(
        self, backbone: Backbone, head: nn.Module, delta: Delta, outputs: Tensor, batch: RaggedBatch, smoothing: float
    ) -> Tensor:
        """Return the mean loss over the items of a batch.

        Args:
            backbone: the model.
            head: from `head`.
            delta: that the rows belong to.
            outputs: (items, D), from `read`.
            batch: the rows, with labels or learned tokens.
            smoothing: share of the target spread over all classes. [fraction]
        Returns:
            A scalar.
        """
        raise NotImplementedError

    def head(self, width: int, classes: int) -> nn.Module:
        """Make what trains besides the delta, untrained.

        Args:
            width: D.
            classes: C.
        Returns:
            A module from (R, D) to logits (R, C); without parameters where the model's own head answers.
        """
        return nn.Module()

    @property
    def copies(self) -> int:
        """How often a row stands in a step; several times where a loss compares what dropout makes of it."""
        return 1

    @property
    def separable(self) -> bool:
        """Whether the rows of a step may go through the model in parts whose losses are averaged."""
        return True

    @property
    def answers_untrained(self) -> bool:
        """Whether a head that never trained answers better than by chance."""
        return self.family == "generating" or self.starts_from_features

    @property
    def starts_from_features(self) -> bool:
        """Whether `start` reads the frozen model's features of the training rows."""
        return False

    @property
    def reads_label_text(self) -> bool:
        """Whether `start` reads features of the labels' texts."""
        return False

    def start(self, head: nn.Module, features: Tensor, labels: Tensor, label_features: Tensor | None = None) -> None:
        """Give the head its starting values from the frozen model's features.

        Args:
            head: from `head`.
            features: (rows, D) of the training rows.
            labels: (rows,), int64.
            label_features: (C, D), of the labels' texts; None where nobody reads them.
        """
