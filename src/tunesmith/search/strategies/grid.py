"""Grid search: every combination, in an order drawn from the seed."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import numpy as np

from tunesmith.core.errors import RecipeError
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.search.bookkeeping import optuna
from tunesmith.search.space import Space
from tunesmith.search.strategies.sampling import Sampling

_MOST = 100_000  # points: more would never be tried


@register("strategies")
class Grid(Sampling):
    """Every combination of choices and of evenly spread numbers; a budget that ends early has tried a random part."""

    name: ClassVar[str] = "grid"

    each: int = setting(3, "Numbers of a range, both ends included.", unit="count", ge=2)

    def sampler(self, space: Space, seed: int) -> Any:
        """Draw by chance what the points leave open, which is nothing."""
        return optuna().samplers.RandomSampler(seed=seed)

    def points(self, space: Space, seed: int) -> list[dict[str, Any]]:
        """List the combinations."""
        found = list(itertools.islice(space.points(self.each), _MOST + 1))
        if len(found) > _MOST:
            raise RecipeError(
                f"strategy grid: the space has more than {_MOST:,} combinations. Give fewer choices, lower "
                "search.strategy.each, or take random or tpe."
            )
        return [found[place] for place in np.random.default_rng(seed).permutation(len(found))]
