"""A learning rate that falls several times."""

from __future__ import annotations

import math
from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.schedules.base import Schedule


@register("schedules")
class Restarts(Schedule):
    """The rate falls as half a cosine several times, each time `growth` times as long: (1 + cos(pi q)) / 2.

    Source: Loshchilov and Hutter 2016, arXiv:1608.03983, eq. 5.
    """

    name: ClassVar[str] = "restarts"
    paper: ClassVar[str] = "Loshchilov and Hutter 2016, arXiv:1608.03983"

    cycles: int = setting(3, "How often it falls.", unit="count", ge=2, le=100)
    growth: float = setting(1.0, "Length of a fall over that of the one before.", ge=1, le=10)
    end: float = setting(0.0, "Share of the rate at the end of a fall.", unit="fraction", ge=0, le=1)

    def at(self, done: float) -> float:
        """Return the height in the present fall; q runs from 0 to 1 in each."""
        lengths = [self.growth**number for number in range(self.cycles)]
        left = done * sum(lengths)
        for length in lengths[:-1]:
            if left < length:
                break
            left -= length
        else:
            length = lengths[-1]
        return self.end + (1 - self.end) * (0.5 * (1.0 + math.cos(math.pi * left / length)))
