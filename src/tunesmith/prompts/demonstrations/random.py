"""Demonstrations drawn at random."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.prompts.demonstrations.base import Pool, Strategy


@register("demonstrations")
class Random(Strategy):
    """Training rows drawn once, the same for all rows; a model reads them once per batch."""

    name: ClassVar[str] = "random"

    def order(self, pool: Pool, count: int) -> list[int]:
        """Draw."""
        return pool.shuffled()
