"""A learning rate that falls by the same factor in every step."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.schedules.base import Schedule


@register("schedules")
class Exponential(Schedule):
    """The rate falls by the same factor in every step: end^p."""

    name: ClassVar[str] = "exponential"

    end: float = setting(0.01, "Share of the rate at the end.", unit="fraction", gt=0, lt=1)

    def at(self, done: float) -> float:
        """Return the power."""
        return self.end**done
