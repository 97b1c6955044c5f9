"""Cross-entropy of the head's logits."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from tunesmith.core.registry import register
from tunesmith.tasks.loss import Learned, Loss


@register("losses")
class CrossEntropy(Loss):
    """Minus the log probability of the label, mean over the rows; with training.label_smoothing."""

    name: ClassVar[str] = "cross-entropy"

    def compute(self, learned: Learned) -> Tensor:
        """Compute it from the logits."""
        return nn.functional.cross_entropy(learned.logits, learned.labels, label_smoothing=learned.smoothing)
