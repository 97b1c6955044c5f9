"""A learning rate on a straight line."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.schedules.base import Schedule


@register("schedules")
class Linear(Schedule):
    """The rate falls on a line: end + (1 - end)(1 - p)."""

    name: ClassVar[str] = "linear"

    end: float = setting(0.0, "Share of the rate at the end.", unit="fraction", ge=0, le=1)

    def at(self, done: float) -> float:
        """Return the line's height."""
        return self.end + (1 - self.end) * (1.0 - done)
