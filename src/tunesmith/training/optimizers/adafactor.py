"""Adafactor."""

from __future__ import annotations

from typing import ClassVar

import torch

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.optimizers.base import Group, Rule


@register("optimizers")
class Adafactor(Rule):
    """Keeps row and column means of a matrix's squared gradients only; steps are relative to the matrix's size.

    The learning rate is a share of a tensor's root mean square per step, at most 1 / sqrt(steps): 1e-2 in the paper.

    Source: Shazeer and Stern 2018, arXiv:1804.04235, algorithms 4 and 5.
    """

    name: ClassVar[str] = "adafactor"
    paper: ClassVar[str] = "Shazeer and Stern 2018, arXiv:1804.04235"

    decay_power: float = setting(-0.8, "The decay of the means at step t is 1 - t^decay_power.", lt=0)
    least_size: float = setting(1e-3, "Root mean square that a tensor counts as having at least.", gt=0)
    clip: float = setting(1.0, "Largest root mean square of a tensor's step before the rate.", gt=0)

    def build(self, groups: list[Group]) -> torch.optim.Optimizer:
        """Make torch's."""
        return torch.optim.Adafactor(groups, beta2_decay=self.decay_power, eps=(None, self.least_size), d=self.clip)
