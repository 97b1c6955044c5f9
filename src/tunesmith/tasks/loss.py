"""What a loss is: a number from the features, logits and labels of a batch, of texts or images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from tunesmith.core.settings import Component, setting


@dataclass(frozen=True)
class Learned:
    """What a loss may read of a batch.

    Args:
        features: (R, D), what the head reads.
        labels: (R,), int64; the likeliest where soft labels are learned.
        logits: (R, C), of the head.
        vectors: (C, D), of the head's classes; None where it has none.
        smoothing: share of the target spread over all classes. [fraction]
        soft: (R, C), a probability for every class, learned in place of the label; None where there are none.
        counts: (C,), training rows of every class; None where nobody counted.
        row_weights: (R,), factor of every row's loss, of mean 1 over the training rows; None where all weigh the same.
    """

    features: Tensor
    labels: Tensor
    logits: Tensor
    vectors: Tensor | None
    smoothing: float = 0.0
    soft: Tensor | None = None
    counts: Tensor | None = None
    row_weights: Tensor | None = None


@dataclass(frozen=True)
class Classes:
    """What is known of the classes while a head trains; it stands in the head's attribute `classes`.

    Args:
        counts: (C,), training rows.
        weights: (C,), factor of the loss of a class's rows; None where all weigh the same.
    """

    counts: Tensor
    weights: Tensor | None = None


class Loss(Component):
    """Base of every loss. A loss's file registers one subclass with `@register("losses")`."""

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    reads: ClassVar[Literal["logits", "features", "vectors"]] = "logits"
    separable: ClassVar[bool] = True  # the mean over rows is the mean over the parts of a batch
    learns_soft: ClassVar[bool] = False  # whether it can learn a probability for every class
    smooths: ClassVar[bool] = False  # whether it reads training.label_smoothing
    weighable: ClassVar[bool] = False  # whether its rows can be weighted, as by training.class_weights
    copies: ClassVar[int] = 1  # how often a row stands in a step

    weight: float = setting(1.0, "Factor of this loss among the task's.", gt=0)

    def compute(self, learned: Learned) -> Tensor:
        """Return the mean loss of a batch.

        Args:
            learned: of the batch.
        Returns:
            A scalar that carries gradients.
        """
        raise NotImplementedError


class RowLoss(Loss):
    """Base of losses that are a mean over rows, each from its logits alone."""

    weighable: ClassVar[bool] = True

    def rows(self, learned: Learned) -> Tensor:
        """Return every row's loss.

        Args:
            learned: of the batch.
        Returns:
            (R,).
        """
        raise NotImplementedError

    def compute(self, learned: Learned) -> Tensor:
        """Average the rows' losses, weighted where rows have weights."""
        found = self.rows(learned)
        return found.mean() if learned.row_weights is None else (found * learned.row_weights).mean()


def of_label(values: Tensor, labels: Tensor) -> Tensor:
    """Take each row's value of its label.

    Args:
        values: (R, C).
        labels: (R,), int64.
    Returns:
        (R,).
    """
    return values.gather(1, labels[:, None])[:, 0]
