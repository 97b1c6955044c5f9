"""Demonstrations of every label in turn."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.prompts.demonstrations.base import Pool, Strategy, dealt


@register("demonstrations")
class Balanced(Strategy):
    """Training rows drawn once, of each label as many as of any other."""

    name: ClassVar[str] = "balanced"

    def order(self, pool: Pool, count: int) -> list[int]:
        """Draw, then deal out label by label."""
        return dealt(pool.shuffled(), pool.labels)
