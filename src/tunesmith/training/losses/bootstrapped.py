"""Bootstrapped cross-entropy."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.tasks.loss import Learned, RowLoss, of_label


@register("losses")
class Bootstrapped(RowLoss):
    """Cross-entropy with the model's own answer mixed into the label, for labels with mistakes.

    -sum_c (beta y_c + (1 - beta) z_c) log p_c, where z is p itself (soft) or its most probable class (hard).

    Source: Reed et al. 2014, arXiv:1412.6596, eq. 6 and 7; beta 0.95 there for soft, 0.8 for hard.
    """

    name: ClassVar[str] = "bootstrapped"
    paper: ClassVar[str] = "Reed et al. 2014, arXiv:1412.6596"

    beta: float = setting(0.95, "Share of the label.", unit="fraction", ge=0, le=1)
    answer: Literal["soft", "hard"] = setting("soft", "What of the model's answer is mixed in.")

    def rows(self, learned: Learned) -> Tensor:
        """Compute it from the logits."""
        nats = nn.functional.log_softmax(learned.logits, 1)
        own = (nats.exp() * nats).sum(1) if self.answer == "soft" else nats.amax(1)
        return -self.beta * of_label(nats, learned.labels) - (1 - self.beta) * own
