"""A learning rate that rises and falls once."""

from __future__ import annotations

import math
from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.schedules.base import Schedule


@register("schedules")
class OneCycle(Schedule):
    """The rate rises on half a cosine from `start` to 1, then falls on another one to `end`.

    Source: Smith and Topin 2017, arXiv:1708.07120. Differs: cosines, as in torch; momentum stays.
    """

    name: ClassVar[str] = "one-cycle"
    paper: ClassVar[str] = "Smith and Topin 2017, arXiv:1708.07120"
    rises: ClassVar[bool] = True

    rising_fraction: float = setting(0.3, "Share of the steps in which it rises.", unit="fraction", gt=0, lt=1)
    start: float = setting(0.04, "Share of the highest rate at the first step.", unit="fraction", ge=0, lt=1)
    end: float = setting(4e-6, "Share of the highest rate at the end.", unit="fraction", ge=0, lt=1)

    def at(self, done: float) -> float:
        """Return the height of the cosine at hand."""
        if done < self.rising_fraction:
            low, turned = self.start, 1 - done / self.rising_fraction
        else:
            low, turned = self.end, (done - self.rising_fraction) / (1 - self.rising_fraction)
        return low + (1 - low) * (0.5 * (1.0 + math.cos(math.pi * turned)))
