"""Demonstrations unlike each other."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.prompts.demonstrations.base import Pool, Strategy


@register("demonstrations")
class Diverse(Strategy):
    """Training rows far from each other: the one nearest to all, then ever the one farthest from those chosen.

    Source: Gonzalez 1985, "Clustering to minimize the maximum intercluster distance" (farthest-first traversal).
    Differs: it starts at the row nearest to the mean, not at any row.
    """

    name: ClassVar[str] = "diverse"
    compares: ClassVar[bool] = True

    def order(self, pool: Pool, count: int) -> list[int]:
        """Go from row to row; those that will not be shown follow as they come."""
        vectors = pool.directions
        chosen = [int(np.argmax(vectors @ vectors.mean(0)))]
        closest = vectors @ vectors[chosen[0]]
        while len(chosen) < min(count, len(pool)):
            closest[chosen] = np.inf
            chosen.append(int(np.argmin(closest)))
            closest = np.maximum(closest, vectors @ vectors[chosen[-1]])
        rest = sorted(set(range(len(pool))) - set(chosen))
        return [*chosen, *rest]
