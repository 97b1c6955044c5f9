"""L0 penalty by hard concrete gates."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.regularizers.base import Gating

_TEMPERATURE, _LOW, _HIGH = 2 / 3, -0.1, 1.1  # beta, gamma and zeta of the paper


@register("regularizers")
class L0(Gating):
    """Every number, or row of a matrix, has a gate that learns to be open or shut; what is shut is exactly zero.

    In a step w z stands in the place of w, z = clamp(s (zeta - gamma) + gamma, 0, 1), s = sigmoid((log u - log(1 - u) +
    log a) / beta), u ~ U(0, 1). The loss gets strength x the expected share of numbers that are not zero, each with
    sigmoid(log a - beta log(-gamma / zeta)). Answers take s = sigmoid(log a). beta = 2/3, gamma = -0.1, zeta = 1.1.

    Source: Louizos et al. 2018, arXiv:1712.01312, eq. 10 to 13. Differs: the share in the place of the number.
    """

    name: ClassVar[str] = "l0"
    paper: ClassVar[str] = "Louizos et al. 2018, arXiv:1712.01312"
    sparsifies: ClassVar[bool] = True

    per: Literal["number", "row"] = setting(
        "number", "What has a gate: every number, or every row of a matrix (of LoRA's A: every rank)."
    )
    open: float = setting(0.9, "Share a of the start, a / (1 - a) = exp(log a).", unit="fraction", gt=0, lt=1)

    def shape(self, one: Tensor) -> tuple[int, ...]:
        """Say how many gates a parameter has."""
        return tuple(one.shape) if self.per == "number" or one.dim() < 2 else (len(one), *(1,) * (one.dim() - 1))

    @property
    def start(self) -> float:
        """Log a at the start."""
        return math.log(self.open / (1 - self.open))

    def drawn(self, log_a: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Draw z, and its derivative by log a."""
        return _stretched((uniform.logit(eps=1e-6) + log_a) / _TEMPERATURE, 1 / _TEMPERATURE)

    def settled(self, log_a: Tensor) -> Tensor:
        """Return z without chance."""
        return _stretched(log_a, 1.0)[0]

    def open_share(self, log_a: Tensor) -> Tensor:
        """Return every gate's probability of not being zero."""
        return (log_a - _TEMPERATURE * math.log(-_LOW / _HIGH)).sigmoid()


def _stretched(x: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    s = torch.sigmoid(x)
    wide = s * (_HIGH - _LOW) + _LOW
    inside = ((wide > 0) & (wide < 1)).to(s)
    return wide.clamp(0, 1), inside * (_HIGH - _LOW) * s * (1 - s) * slope
