"""A learning rate on half a cosine."""

from __future__ import annotations

import math
from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.schedules.base import Schedule


@register("schedules")
class Cosine(Schedule):
    """The rate falls as half a cosine: end + (1 - end)(1 + cos(pi p)) / 2.

    Source: Loshchilov and Hutter 2016, arXiv:1608.03983, eq. 5, one period.
    """

    name: ClassVar[str] = "cosine"
    paper: ClassVar[str] = "Loshchilov and Hutter 2016, arXiv:1608.03983"

    end: float = setting(0.0, "Share of the rate at the end.", unit="fraction", ge=0, le=1)

    def at(self, done: float) -> float:
        """Return the cosine's height."""
        return self.end + (1 - self.end) * (0.5 * (1.0 + math.cos(math.pi * done)))
