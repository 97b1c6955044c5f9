"""Proxy-anchor loss: class vectors pull and push all rows of the batch."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.tasks.heads.base import unit
from tunesmith.tasks.loss import Learned, Loss


@register("losses")
class ProxyAnchor(Loss):
    """Each class vector p as an anchor for the batch's rows, the hardest of them most.

    L = mean over p with rows of log(1 + sum over its rows of exp(-a (cos - m))) + mean over all p of
    log(1 + sum over other rows of exp(a (cos + m))), a the sharpness, m the margin.

    Source: Kim et al. 2020, arXiv:2003.13911, eq. 4.
    """

    name: ClassVar[str] = "proxy-anchor"
    paper: ClassVar[str] = "Kim et al. 2020, arXiv:2003.13911"
    reads: ClassVar[Literal["logits", "features", "vectors"]] = "vectors"
    separable: ClassVar[bool] = False

    sharpness: float = setting(32.0, "Factor of the cosines.", gt=0)
    margin: float = setting(0.1, "Margin of the cosines.", ge=0, le=1)

    def compute(self, learned: Learned) -> Tensor:
        """Compute it from features and class vectors."""
        assert learned.vectors is not None
        cosines = unit(learned.features.to(learned.vectors.dtype)) @ unit(learned.vectors).T  # (R, C)
        mine = nn.functional.one_hot(learned.labels, cosines.shape[1]).bool()
        pull = (-self.sharpness * (cosines - self.margin)).masked_fill(~mine, float("-inf"))
        push = (self.sharpness * (cosines + self.margin)).masked_fill(mine, float("-inf"))
        nothing = cosines.new_zeros(1, cosines.shape[1])  # the 1 in the logarithm
        pulled = torch.logsumexp(torch.cat([pull, nothing]), 0)[mine.any(0)]
        return pulled.mean() + torch.logsumexp(torch.cat([push, nothing]), 0).mean()
