"""Class-balanced loss."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.models.placing import widest
from tunesmith.tasks.loss import Learned, RowLoss, of_label


@register("losses")
class ClassBalanced(RowLoss):
    """Cross-entropy, or focal loss, over the effective number of a class's rows: weight (1 - beta) / (1 - beta^n_y).

    The weights of all classes together are C.

    Source: Cui et al. 2019, arXiv:1901.05555, eq. 12 to 14.
    """

    name: ClassVar[str] = "class-balanced"
    paper: ClassVar[str] = "Cui et al. 2019, arXiv:1901.05555"

    beta: float = setting(0.999, "0 weighs all rows the same; towards 1, all classes.", ge=0, lt=1)
    gamma: float = setting(0.0, "Of focal loss; 0 is cross-entropy.", ge=0, le=20)

    def rows(self, learned: Learned) -> Tensor:
        """Compute it from the logits and the training rows of every class."""
        assert learned.counts is not None
        counts = learned.counts.clamp(min=1).to(learned.logits.device, widest(learned.logits.device))
        shares = (1 - self.beta) / (1 - self.beta**counts)  # near beta = 1 narrower numbers have 0 / 0 here
        weights = (shares * (len(shares) / shares.sum())).to(learned.logits)
        nats = of_label(nn.functional.log_softmax(learned.logits, 1), learned.labels)
        right = 1.0 if not self.gamma else (1 - nats.exp()).clamp(min=1e-12) ** self.gamma
        return -weights[learned.labels] * right * nats
