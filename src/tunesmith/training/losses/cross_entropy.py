"""Cross-entropy of the head's logits."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from tunesmith.core.registry import register
from tunesmith.tasks.loss import Learned, Loss


@register("losses")
class CrossEntropy(Loss):
    """Minus the log probability of the label, mean over the rows; with training.label_smoothing.

    With soft labels q: - sum_c q_c log p_c.
    """

    name: ClassVar[str] = "cross-entropy"
    learns_soft: ClassVar[bool] = True

    def compute(self, learned: Learned) -> Tensor:
        """Compute it from the logits."""
        wanted = learned.labels if learned.soft is None else learned.soft.to(learned.logits.dtype)
        return nn.functional.cross_entropy(learned.logits, wanted, label_smoothing=learned.smoothing)
