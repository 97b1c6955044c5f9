"""R-Drop."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.tasks.loss import Learned, RowLoss


@register("losses")
class RDrop(RowLoss):
    """Every row goes through the model twice; besides cross-entropy, what dropout makes of it must agree.

    Mean of -log p_y over both + alpha / 4 (KL(p, p') + KL(p', p)): half of the paper's, which adds the two up.

    Source: Wu et al. 2021, arXiv:2106.14448, eq. 4.
    """

    name: ClassVar[str] = "r-drop"
    paper: ClassVar[str] = "Wu et al. 2021, arXiv:2106.14448"
    separable: ClassVar[bool] = False  # both of a row are compared
    smooths: ClassVar[bool] = True
    copies: ClassVar[int] = 2

    alpha: float = setting(1.0, "Factor of the disagreement.", gt=0, le=100)

    def rows(self, learned: Learned) -> Tensor:
        """Compute it from the logits of the rows, once and once more."""
        nats = nn.functional.cross_entropy(
            learned.logits, learned.labels, label_smoothing=learned.smoothing, reduction="none"
        )
        first, second = nn.functional.log_softmax(learned.logits, 1).chunk(2)
        apart = ((first.exp() - second.exp()) * (first - second)).sum(1)  # KL both ways
        return nats + self.alpha / 4 * apart.repeat(2)
