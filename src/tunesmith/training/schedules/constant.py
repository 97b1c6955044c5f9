"""A learning rate that stays."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.training.schedules.base import Schedule


@register("schedules")
class Constant(Schedule):
    """The rate stays at its highest: 1."""

    name: ClassVar[str] = "constant"

    def at(self, done: float) -> float:
        """Return 1."""
        return 1.0
