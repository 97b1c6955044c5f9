"""Symmetric cross-entropy."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.tasks.loss import Learned, RowLoss, of_label


@register("losses")
class Symmetric(RowLoss):
    """Cross-entropy and its reverse, for labels with mistakes: -alpha log p_y - beta A (1 - p_y).

    The reverse is -sum_c p_c log q_c, where the log of a label's zeros is set to A.

    Source: Wang et al. 2019, arXiv:1908.06112, eq. 7; alpha 0.1, beta 1 there for 10 classes, 6 and 0.1 for 100.
    """

    name: ClassVar[str] = "symmetric-cross-entropy"
    paper: ClassVar[str] = "Wang et al. 2019, arXiv:1908.06112"

    alpha: float = setting(1.0, "Factor of cross-entropy.", ge=0, le=100)
    beta: float = setting(1.0, "Factor of the reverse.", ge=0, le=100)
    log_zero: float = setting(-4.0, "A, what stands for the log of zero.", unit="nats", lt=0, ge=-100)

    def rows(self, learned: Learned) -> Tensor:
        """Compute it from the logits."""
        nats = of_label(nn.functional.log_softmax(learned.logits, 1), learned.labels)
        return -self.alpha * nats - self.beta * self.log_zero * (1 - nats.exp())
