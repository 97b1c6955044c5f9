"""Adagrad."""

from __future__ import annotations

from typing import ClassVar

import torch

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.optimizers.base import Group, Rule


@register("optimizers")
class Adagrad(Rule):
    """Steps over the root of the sum of all squared gradients; weight decay is part of the gradient.

    Source: Duchi et al. 2011, jmlr.org/papers/v12/duchi11a.html.
    """

    name: ClassVar[str] = "adagrad"
    paper: ClassVar[str] = "Duchi et al. 2011, jmlr.org/papers/v12/duchi11a.html"

    initial_sum: float = setting(0.0, "Where the sum starts.", ge=0)
    eps: float = setting(1e-10, "Added to its root.", gt=0)

    def build(self, groups: list[Group]) -> torch.optim.Optimizer:
        """Make torch's."""
        return torch.optim.Adagrad(groups, initial_accumulator_value=self.initial_sum, eps=self.eps)
