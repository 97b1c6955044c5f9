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
    """

    features: Tensor
    labels: Tensor
    logits: Tensor
    vectors: Tensor | None
    smoothing: float = 0.0
    soft: Tensor | None = None


class Loss(Component):
    """Base of every loss. A loss's file registers one subclass with `@register("losses")`."""

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    reads: ClassVar[Literal["logits", "features", "vectors"]] = "logits"
    separable: ClassVar[bool] = True  # the mean over rows is the mean over the parts of a batch
    learns_soft: ClassVar[bool] = False  # whether it can learn a probability for every class

    weight: float = setting(1.0, "Factor of this loss among the task's.", gt=0)

    def compute(self, learned: Learned) -> Tensor:
        """Return the mean loss of a batch.

        Args:
            learned: of the batch.
        Returns:
            A scalar that carries gradients.
        """
        raise NotImplementedError
