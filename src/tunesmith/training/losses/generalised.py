"""Generalised cross-entropy."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.tasks.loss import Learned, RowLoss, of_label


@register("losses")
class Generalised(RowLoss):
    """Between cross-entropy (q to 0) and mean absolute error (q = 1), for labels with mistakes: (1 - p_y^q) / q.

    Source: Zhang and Sabuncu 2018, arXiv:1805.07836, eq. 6.
    """

    name: ClassVar[str] = "generalised-cross-entropy"
    paper: ClassVar[str] = "Zhang and Sabuncu 2018, arXiv:1805.07836"

    q: float = setting(0.7, "How much less rows count that the model finds improbable.", gt=0, le=1)

    def rows(self, learned: Learned) -> Tensor:
        """Compute it from the logits."""
        nats = of_label(nn.functional.log_softmax(learned.logits, 1), learned.labels)
        return -(self.q * nats).expm1() / self.q
