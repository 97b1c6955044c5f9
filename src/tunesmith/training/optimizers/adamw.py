"""AdamW."""

from __future__ import annotations

from typing import ClassVar

import torch

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.optimizers.base import Group, Rule, may_fuse


@register("optimizers")
class AdamW(Rule):
    """Adam with weight decay apart from the gradient.

    Source: Loshchilov and Hutter 2017, arXiv:1711.05101, algorithm 2.
    """

    name: ClassVar[str] = "adamw"
    paper: ClassVar[str] = "Loshchilov and Hutter 2017, arXiv:1711.05101"

    beta1: float = setting(0.9, "Decay of the mean of gradients.", ge=0, lt=1)
    beta2: float = setting(0.999, "Decay of the mean of their squares.", ge=0, lt=1)
    eps: float = setting(1e-8, "Added to the root of that mean.", gt=0)

    def build(self, groups: list[Group]) -> torch.optim.Optimizer:
        """Make torch's."""
        return torch.optim.AdamW(groups, betas=(self.beta1, self.beta2), eps=self.eps, fused=may_fuse(groups))
