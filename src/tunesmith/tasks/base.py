"""What a task is: settings, facts and a few verbs."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from tunesmith.core.settings import Component
from tunesmith.models.backbone import Backbone
from tunesmith.models.layout import Layout, RaggedBatch


class Task(Component):
    """Base of every task. A task's file registers one subclass with `@register("tasks")`."""

    name: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]] = ()
    baselines: ClassVar[tuple[str, ...]] = ()

    def prepare(self, model: nn.Module, facts: dict[str, Any]) -> Task:
        """Fit the task to a model: settle settings left open, switch off parts of the model nobody reads.

        Args:
            model: as loaded, before it is opened.
            facts: what the model folder says about pooling.
        Returns:
            The task with every setting decided.
        """
        raise NotImplementedError

    def features(self, backbone: Backbone, hidden: Tensor, layout: Layout) -> Tensor:
        """Reduce hidden states to what the head reads.

        Args:
            backbone: the model.
            hidden: (N, D).
            layout: of R rows.
        Returns:
            (R, D).
        """
        raise NotImplementedError

    def head(self, width: int, classes: int) -> nn.Module:
        """Make the head, untrained.

        Args:
            width: D.
            classes: C.
        Returns:
            A module from (R, D) to logits (R, C).
        """
        raise NotImplementedError

    @property
    def starts_from_features(self) -> bool:
        """Whether `start` reads the frozen model's features of the training rows."""
        return False

    def start(self, head: nn.Module, features: Tensor, labels: Tensor) -> None:
        """Give the head its starting values from the frozen model's features.

        Args:
            head: from `head`.
            features: (rows, D) of the training rows.
            labels: (rows,), int64.
        """

    def loss(self, logits: Tensor, batch: RaggedBatch, smoothing: float) -> Tensor:
        """Return the mean loss of a batch.

        Args:
            logits: (R, C).
            batch: with labels.
            smoothing: share of the target spread over all classes. [fraction]
        Returns:
            A scalar.
        """
        raise NotImplementedError
