"""Demonstrations like the row itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.prompts.demonstrations.base import Pool, Strategy, Vectors


@register("demonstrations")
class Nearest(Strategy):
    """The training rows whose vectors have the largest cosine with the row's.

    Source: Liu et al. 2022, arXiv:2101.06804 (KATE).
    """

    name: ClassVar[str] = "nearest"
    compares: ClassVar[bool] = True
    per_row: ClassVar[bool] = True

    def near(self, pool: Pool, texts: Sequence[str]) -> Vectors:
        """Compare vectors."""
        found: Vectors = pool.directed(texts) @ pool.directions.T
        return found
