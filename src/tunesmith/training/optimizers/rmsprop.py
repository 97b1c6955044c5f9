"""RMSprop."""

from __future__ import annotations

from typing import ClassVar

import torch

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.optimizers.base import Group, Rule


@register("optimizers")
class RmsProp(Rule):
    """Steps over the root of a moving mean of squared gradients; weight decay is part of the gradient.

    Source: Tieleman and Hinton 2012, lecture 6.5; centered: Graves 2013, arXiv:1308.0850, eq. 38 to 45.
    """

    name: ClassVar[str] = "rmsprop"
    paper: ClassVar[str] = "Tieleman and Hinton 2012, lecture 6.5"

    decay: float = setting(0.99, "Decay of the mean of squares.", ge=0, lt=1)
    eps: float = setting(1e-8, "Added to its root.", gt=0)
    momentum: float = setting(0.0, "Share of the last step that is kept.", ge=0, lt=1)
    centered: bool = setting(False, "Divide by the standard deviation instead.")

    def build(self, groups: list[Group]) -> torch.optim.Optimizer:
        """Make torch's."""
        return torch.optim.RMSprop(
            groups, alpha=self.decay, eps=self.eps, momentum=self.momentum, centered=self.centered
        )
