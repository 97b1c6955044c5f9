"""Supervised contrastive loss: rows of a label together, others apart."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.tasks.heads.base import unit
from tunesmith.tasks.loss import Learned, Loss


@register("losses")
class SupervisedContrastive(Loss):
    """Every row picks out the rows of its label among all others of the batch.

    L = mean over rows i with positives P(i) of -1/|P(i)| sum over p of log(exp(s_ip) / sum over a != i of exp(s_ia)),
    s_ij = cos(x_i, x_j) / temperature; zero where no row has a positive.

    Source: Khosla et al. 2020, arXiv:2004.11362, eq. 2.
    """

    name: ClassVar[str] = "supervised-contrastive"
    paper: ClassVar[str] = "Khosla et al. 2020, arXiv:2004.11362"
    reads: ClassVar[Literal["logits", "features", "vectors"]] = "features"
    separable: ClassVar[bool] = False

    temperature: float = setting(0.1, "Divides the cosines.", gt=0)

    def compute(self, learned: Learned) -> Tensor:
        """Compute it from the features."""
        z, labels = unit(learned.features), learned.labels
        itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
        scores = (z @ z.T / self.temperature).masked_fill(itself, float("-inf"))
        shares = scores - torch.logsumexp(scores, 1, keepdim=True)
        alike = (labels[:, None] == labels) & ~itself
        counts = alike.sum(1)
        if not counts.any():
            return z.sum() * 0
        means = shares.masked_fill(~alike, 0).sum(1) / counts.clamp(min=1)
        return -means[counts > 0].mean()
