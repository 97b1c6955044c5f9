"""Grid search: every combination, then finer grids around the best one; in an order drawn from the seed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from tunesmith.core.errors import RecipeError
from tunesmith.core.registry import register
from tunesmith.core.seeds import derived
from tunesmith.core.settings import setting
from tunesmith.search.bookkeeping import optuna
from tunesmith.search.space import Space
from tunesmith.search.strategies.sampling import Sampling
from tunesmith.search.trials import StudyTrial, best_of

_MOST = 100_000  # points: more would never be tried
_DEEPEST = 12  # grids inside of each other; with the default share the last spans 1/500 of a range


@register("strategies")
class Grid(Sampling):
    """Every combination of choices and of evenly spread numbers, then finer grids around the best numbers.

    A range gives the middles of equal parts. When every combination was tried, the ranges are narrowed around the best
    trial, whose choices stay, and so on; a space without ranges ends after its combinations. A budget that ends early
    has tried a random part.

    Source: a coarse grid, then a finer one: Hsu, Chang and Lin 2003, A Practical Guide to Support Vector
        Classification. Differs: the share of the width is a setting, and it goes on as long as the budget lasts.
    """

    name: ClassVar[str] = "grid"
    paper: ClassVar[str] = "Hsu, Chang, Lin 2003, A Practical Guide to Support Vector Classification"

    each: int = setting(2, "Numbers of a range, in the middles of as many parts.", unit="count", ge=2)
    zoom: float | None = setting(
        0.6, "Width of a grid as a share of the one before; no finer grid when empty.", unit="fraction", gt=0, lt=1
    )

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
        return _shuffled(found, seed)

    def more(
        self, trials: Sequence[StudyTrial], space: Space, higher_is_better: bool, asked: int, seed: int
    ) -> list[dict[str, Any]]:
        """List what a finer grid around the best trial has that was not tried."""
        best = best_of(list(trials), higher_is_better)
        if best is None or self.zoom is None:
            return []
        seen = [one.parameters for one in trials]
        for depth in range(asked + 1, _DEEPEST + 1):
            finer = space.narrowed(best.parameters, self.zoom**depth)
            found = [point for point in finer.points(self.each) if point not in seen]
            if found:
                return _shuffled(found, derived(seed, f"grid {depth}"))
        return []


def _shuffled(points: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    return [points[place] for place in np.random.default_rng(seed).permutation(len(points))]
