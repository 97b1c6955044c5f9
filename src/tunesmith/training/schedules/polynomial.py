"""A learning rate on a power of what is left."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.schedules.base import Schedule


@register("schedules")
class Polynomial(Schedule):
    """The rate falls as a power of what is left: end + (1 - end)(1 - p)^power."""

    name: ClassVar[str] = "polynomial"

    power: float = setting(2.0, "Exponent; 1 is linear.", gt=0, le=10)
    end: float = setting(0.0, "Share of the rate at the end.", unit="fraction", ge=0, le=1)

    def at(self, done: float) -> float:
        """Return the polynomial."""
        return self.end + (1 - self.end) * (1 - done) ** self.power
