"""Contrastive loss over the pairs of a batch."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.tasks.heads.base import unit
from tunesmith.tasks.loss import Learned, Loss


@register("losses")
class Contrastive(Loss):
    """Pairs of one label come together, others apart to a margin: d^2 or max(0, margin - d)^2, d = 1 - cos.

    Both kinds of pairs weigh the same, as a batch has far more pairs of different labels.

    Source: Hadsell et al. 2006, doi:10.1109/CVPR.2006.100, eq. 4. Differs: cosine distance, kinds of pairs balanced.
    """

    name: ClassVar[str] = "contrastive"
    paper: ClassVar[str] = "Hadsell et al. 2006, doi:10.1109/CVPR.2006.100"
    reads: ClassVar[Literal["logits", "features", "vectors"]] = "features"
    separable: ClassVar[bool] = False

    margin: float = setting(0.5, "Distance from which pairs of different labels are left alone.", gt=0, le=2)

    def compute(self, learned: Learned) -> Tensor:
        """Compute it from the features."""
        z, labels = unit(learned.features), learned.labels
        first, second = torch.triu_indices(len(z), len(z), 1, device=z.device)
        distance = 1 - (z @ z.T)[first, second]
        alike = labels[first] == labels[second]
        kinds = [distance[alike].square(), (self.margin - distance[~alike]).clamp(min=0).square()]
        means = [kind.mean() for kind in kinds if len(kind)]
        return torch.stack(means).mean() if means else z.sum() * 0
