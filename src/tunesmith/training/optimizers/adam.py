"""Adam."""

from __future__ import annotations

from typing import ClassVar

import torch

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.optimizers.base import Group, Rule, may_fuse


@register("optimizers")
class Adam(Rule):
    """Steps along the mean gradient over the root of its mean square; weight decay is part of the gradient.

    Source: Kingma and Ba 2014, arXiv:1412.6980, algorithm 1.
    """

    name: ClassVar[str] = "adam"
    paper: ClassVar[str] = "Kingma and Ba 2014, arXiv:1412.6980"

    beta1: float = setting(0.9, "Decay of the mean of gradients.", ge=0, lt=1)
    beta2: float = setting(0.999, "Decay of the mean of their squares.", ge=0, lt=1)
    eps: float = setting(1e-8, "Added to the root of that mean.", gt=0)
    amsgrad: bool = setting(False, "Divide by the largest mean square so far (Reddi et al. 2018).")

    def build(self, groups: list[Group]) -> torch.optim.Optimizer:
        """Make torch's."""
        return torch.optim.Adam(
            groups, betas=(self.beta1, self.beta2), eps=self.eps, amsgrad=self.amsgrad, fused=may_fuse(groups)
        )
