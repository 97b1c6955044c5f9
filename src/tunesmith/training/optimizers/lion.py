"""Lion."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.optimizers.base import Group, Rule


class _Lion(torch.optim.Optimizer):
    def __init__(self, groups: list[Group], beta1: float, beta2: float) -> None:
        super().__init__(groups, {"beta1": beta1, "beta2": beta2})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            rate, decay = group["lr"], group["weight_decay"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state, gradient = self.state[parameter], parameter.grad
                if not state:
                    state["mean"] = torch.zeros_like(parameter)
                direction = torch.lerp(gradient, state["mean"], group["beta1"]).sign_()
                parameter.mul_(1 - rate * decay).sub_(direction, alpha=rate)
                state["mean"].lerp_(gradient, 1 - group["beta2"])


@register("optimizers")
class Lion(Rule):
    """Steps of one size: the sign of a mean of gradients. Take a rate 3 to 10 times below AdamW's.

    w <- w - rate x (sign(beta1 m + (1 - beta1) g) + decay x w), then m <- beta2 m + (1 - beta2) g.

    Source: Chen et al. 2023, arXiv:2302.06675, algorithm 2.
    """

    name: ClassVar[str] = "lion"
    paper: ClassVar[str] = "Chen et al. 2023, arXiv:2302.06675"

    beta1: float = setting(0.9, "Share of the mean in the direction.", ge=0, lt=1)
    beta2: float = setting(0.99, "Decay of the mean.", ge=0, lt=1)

    def build(self, groups: list[Group]) -> torch.optim.Optimizer:
        """Make it."""
        return _Lion(groups, self.beta1, self.beta2)
