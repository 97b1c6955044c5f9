"""Stochastic gradient descent."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import model_validator

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.optimizers.base import Group, Rule


@register("optimizers")
class Sgd(Rule):
    """Steps along the gradient, with momentum and Nesterov's look ahead; weight decay is part of the gradient.

    Source: Sutskever et al. 2013, doi:10.5555/3042817.3043064; Differs: the rate multiplies the momentum, as in torch.
    """

    name: ClassVar[str] = "sgd"
    paper: ClassVar[str] = "Sutskever et al. 2013, doi:10.5555/3042817.3043064"

    momentum: float = setting(0.9, "Share of the last step's direction that is kept; 0 for plain descent.", ge=0, lt=1)
    nesterov: bool = setting(False, "Take the gradient's step after the momentum's.")

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Sgd:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov looks ahead along the momentum, which is 0; raise momentum")
        return self

    def build(self, groups: list[Group]) -> torch.optim.Optimizer:
        """Make torch's."""
        return torch.optim.SGD(groups, momentum=self.momentum, nesterov=self.nesterov)
