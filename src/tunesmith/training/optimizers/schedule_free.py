"""Schedule-free AdamW."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.optimizers.base import Group, Rule


class _ScheduleFree(torch.optim.Optimizer):
    """The parameters are y, where gradients are taken; the state has z, which steps, and x, which answers."""

    def __init__(self, groups: list[Group], beta1: float, beta2: float, eps: float) -> None:
        super().__init__(groups, {"beta1": beta1, "beta2": beta2, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for y in group["params"]:
                if y.grad is None:
                    continue
                state = self.state[y]
                if not state:
                    state.update(
                        step=0, total=0.0, x=y.detach().clone(), z=y.detach().clone(), square=torch.zeros_like(y)
                    )
                self._update(y, y.grad, state, group)

    def _update(self, y: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        state["step"] += 1
        rate = group["lr"] * math.sqrt(1 - group["beta2"] ** state["step"])
        state["square"].mul_(group["beta2"]).addcmul_(gradient, gradient, value=1 - group["beta2"])
        step = gradient / (state["square"].sqrt() + group["eps"])
        state["z"].sub_(step.add_(y, alpha=group["weight_decay"]), alpha=rate)
        state["total"] += rate**2
        share = rate**2 / state["total"] if state["total"] else 1.0
        state["x"].lerp_(state["z"], share)
        y.copy_(torch.lerp(state["z"], state["x"], group["beta1"]))


@register("optimizers")
class ScheduleFree(Rule):
    """AdamW that answers with an average of its steps, in place of a falling rate; with schedule constant.

    At y = (1 - beta1) z + beta1 x: v <- beta2 v + (1 - beta2) g^2; z <- z - r (g / (sqrt(v) + eps) + decay x y) with
    r = rate x sqrt(1 - beta2^t); x <- (1 - c) x + c z, c = r^2 over the sum of all r^2.

    Source: Defazio et al. 2024, arXiv:2405.15682, algorithm 1.
    """

    name: ClassVar[str] = "schedule-free"
    paper: ClassVar[str] = "Defazio et al. 2024, arXiv:2405.15682"
    averages: ClassVar[bool] = True

    beta1: float = setting(0.9, "Share of the average where gradients are taken.", ge=0, lt=1)
    beta2: float = setting(0.999, "Decay of the mean of squared gradients.", ge=0, lt=1)
    eps: float = setting(1e-8, "Added to the root of that mean.", gt=0)

    def build(self, groups: list[Group]) -> torch.optim.Optimizer:
        """Make it."""
        return _ScheduleFree(groups, self.beta1, self.beta2, self.eps)

    def answering(self, optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter]) -> list[Tensor] | None:
        """Return x of every parameter."""
        return [optimizer.state.get(one, {}).get("x", one) for one in parameters]
