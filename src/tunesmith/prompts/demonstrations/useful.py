"""Demonstrations that help most by themselves."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tunesmith.core.errors import RecipeError
from tunesmith.core.registry import register
from tunesmith.prompts.demonstrations.base import Pool, Strategy, dealt

_TRIED = 32  # rows that are rated: each costs a pass over some training rows


@register("demonstrations")
class Useful(Strategy):
    """The training rows that, shown alone, make the right labels of other training rows most probable.

    A sample is rated, drawn label by label; the best rated come first.
    """

    name: ClassVar[str] = "useful"
    compares: ClassVar[bool] = True

    def order(self, pool: Pool, count: int) -> list[int]:
        """Rate some rows and put the best in front."""
        if pool.rate is None:
            raise RecipeError("prompt.demonstrations.strategy: nothing here rates rows. Choose random or balanced.")
        order = dealt(pool.shuffled(), pool.labels)
        tried = order[: max(_TRIED, count)]
        best = [tried[place] for place in np.argsort(-np.asarray(pool.rate(tried)), kind="stable")]
        return [*best, *order[len(tried) :]]
