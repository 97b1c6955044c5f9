"""Logit-adjusted cross-entropy."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.tasks.loss import Learned, RowLoss


@register("losses")
class LogitAdjustment(RowLoss):
    """Cross-entropy of logits + tau log(share of the class among the training rows), added while training only.

    Source: Menon et al. 2020, arXiv:2007.07314, eq. 10.
    """

    name: ClassVar[str] = "logit-adjustment"
    paper: ClassVar[str] = "Menon et al. 2020, arXiv:2007.07314"
    smooths: ClassVar[bool] = True

    tau: float = setting(1.0, "Factor of the log share; 1 aims at the mean accuracy over the classes.", gt=0, le=10)

    def rows(self, learned: Learned) -> Tensor:
        """Compute it from the logits and the training rows of every class."""
        assert learned.counts is not None
        shares = learned.counts.clamp(min=1).to(learned.logits)
        adjusted = learned.logits + self.tau * (shares / shares.sum()).log()
        return nn.functional.cross_entropy(
            adjusted, learned.labels, label_smoothing=learned.smoothing, reduction="none"
        )
