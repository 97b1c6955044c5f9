"""Batch-hard triplet loss."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.tasks.heads.base import unit
from tunesmith.tasks.loss import Learned, Loss


@register("losses")
class Triplet(Loss):
    """The farthest row of a row's label must be nearer than the nearest of another label by a margin; d = 1 - cos.

    L = mean over rows that have both of max(0, margin + max d(positive) - min d(negative)).

    Source: Hermans et al. 2017, arXiv:1703.07737, eq. 5. Differs: cosine distance, mean instead of sum.
    """

    name: ClassVar[str] = "triplet"
    paper: ClassVar[str] = "Hermans et al. 2017, arXiv:1703.07737"
    reads: ClassVar[Literal["logits", "features", "vectors"]] = "features"
    separable: ClassVar[bool] = False

    margin: float = setting(0.2, "How much nearer.", gt=0, le=2)

    def compute(self, learned: Learned) -> Tensor:
        """Compute it from the features."""
        z, labels = unit(learned.features), learned.labels
        distance = 1 - z @ z.T
        same = labels[:, None] == labels
        alike = same.clone().fill_diagonal_(False)
        both = alike.any(1) & ~same.all(1)
        if not both.any():
            return z.sum() * 0
        farthest = distance.masked_fill(~alike, float("-inf")).amax(1)
        nearest = distance.masked_fill(same, float("inf")).amin(1)
        return (self.margin + farthest[both] - nearest[both]).clamp(min=0).mean()
