"""Chance: what every other strategy has to beat."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.search.problem import Problem, grown
from tunesmith.search.strategies.base import Strategy


@register("strategies")
class Chance(Strategy):
    """Candidates a drawn number of changes away from the start; nothing is learned from scores."""

    name: ClassVar[str] = "chance"

    most_edits: int = setting(4, "Changes from the start, at most.", unit="count", ge=1)
    tries: int = setting(10_000, "Candidates, where the budget allows so many.", unit="count", ge=1)

    def search(self, problem: Problem[Any], draw: np.random.Generator) -> None:
        """Draw.

        Args:
            problem: what is searched.
            draw: of everything random.
        """
        problem.score(problem.start)
        for _ in range(self.tries):
            problem.score(grown(problem, problem.start, int(draw.integers(1, self.most_edits + 1)), draw))
