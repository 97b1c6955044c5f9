"""Proxy-NCA: every row near its class vector and far from all others."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.tasks.heads.base import unit
from tunesmith.tasks.loss import Learned, Loss


@register("losses")
class ProxyNca(Loss):
    """L = mean over rows of s d(x, p_y) + log(sum over c != y of exp(-s d(x, p_c))), d squared, all of unit length.

    Source: Movshovitz-Attias et al. 2017, arXiv:1703.07464, eq. 4. Differs: a factor s of the distances, as in
    Teh et al. 2020, arXiv:2004.01113.
    """

    name: ClassVar[str] = "proxy-nca"
    paper: ClassVar[str] = "Movshovitz-Attias et al. 2017, arXiv:1703.07464"
    reads: ClassVar[Literal["logits", "features", "vectors"]] = "vectors"

    sharpness: float = setting(8.0, "Factor of the squared distances.", gt=0)

    def compute(self, learned: Learned) -> Tensor:
        """Compute it from features and class vectors."""
        assert learned.vectors is not None
        cosines = unit(learned.features.to(learned.vectors.dtype)) @ unit(learned.vectors).T
        nearness = -self.sharpness * (2 - 2 * cosines)  # of unit vectors: |x - p|^2 = 2 - 2 cos
        mine = nn.functional.one_hot(learned.labels, cosines.shape[1]).bool()
        return (torch.logsumexp(nearness.masked_fill(mine, float("-inf")), 1) - nearness[mine]).mean()
