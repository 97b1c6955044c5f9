"""Mixout."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.regularizers.base import OnParameters


@register("regularizers")
class Mixout(OnParameters):
    """In every step a share of the numbers is where it began, and the others are moved so that the mean stays.

    In the place of w stands (m u + (1 - m) w - p u) / (1 - p), u where it began, m drawn with probability p.

    Source: Lee et al. 2019, arXiv:1909.11299, eq. 4.
    """

    name: ClassVar[str] = "mixout"
    paper: ClassVar[str] = "Lee et al. 2019, arXiv:1909.11299"
    reads_start: ClassVar[bool] = True

    probability: float = setting(0.1, "Share of the numbers that are where they began.", unit="fraction", gt=0, lt=1)

    def stand_in(self, now: Tensor, start: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor] | None:
        """Draw which numbers are where they began."""
        kept = torch.rand(now.shape, generator=draw).to(now.device) >= self.probability
        mixed = torch.where(kept, now, start)
        slope = kept.to(now.dtype) / (1 - self.probability)
        return (mixed - self.probability * start) / (1 - self.probability), slope
