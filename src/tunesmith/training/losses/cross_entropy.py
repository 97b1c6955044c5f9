"""Cross-entropy of the head's logits."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from tunesmith.core.registry import register
from tunesmith.tasks.loss import Learned, RowLoss


@register("losses")
class CrossEntropy(RowLoss):
    """Minus the log probability of the label, mean over the rows; with training.label_smoothing.

    With soft labels q: - sum_c q_c log p_c.
    """

    name: ClassVar[str] = "cross-entropy"
    learns_soft: ClassVar[bool] = True
    smooths: ClassVar[bool] = True

    def compute(self, learned: Learned) -> Tensor:
        """Let torch average where all rows weigh the same."""
        return super().compute(learned) if learned.row_weights is not None else self._nats(learned, "mean")

    def rows(self, learned: Learned) -> Tensor:
        """Compute it from the logits."""
        return self._nats(learned, "none")

    def _nats(self, learned: Learned, reduction: str) -> Tensor:
        wanted = learned.labels if learned.soft is None else learned.soft.to(learned.logits.dtype)
        return nn.functional.cross_entropy(
            learned.logits, wanted, label_smoothing=learned.smoothing, reduction=reduction
        )
