"""Focal loss."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.tasks.loss import Learned, RowLoss, of_label


@register("losses")
class Focal(RowLoss):
    """Cross-entropy of which rows that are right already count less: -(1 - p_y)^gamma log p_y.

    The paper's factor alpha of a class is training.class_weights.

    Source: Lin et al. 2017, arXiv:1708.02002, eq. 4.
    """

    name: ClassVar[str] = "focal"
    paper: ClassVar[str] = "Lin et al. 2017, arXiv:1708.02002"

    gamma: float = setting(2.0, "How much less; 0 is cross-entropy.", ge=0, le=20)

    def rows(self, learned: Learned) -> Tensor:
        """Compute it from the logits."""
        nats = of_label(nn.functional.log_softmax(learned.logits, 1), learned.labels)
        return -((1 - nats.exp()).clamp(min=1e-12) ** self.gamma) * nats
