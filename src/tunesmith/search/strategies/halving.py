"""Successive halving over rows: many candidates on few rows, few candidates on all of them."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.search.problem import Problem, grown
from tunesmith.search.strategies.base import Strategy


@register("strategies")
class Halving(Strategy):
    """Rounds of many candidates around the best so far; in every rung the better part goes on to more rows.

    Source: Jamieson and Talwalkar 2016, arXiv:1502.07943; rows as the resource.
    """

    name: ClassVar[str] = "halving"
    paper: ClassVar[str] = "Jamieson and Talwalkar 2016, arXiv:1502.07943"

    candidates: int = setting(27, "Candidates that begin a round.", unit="count", ge=2)
    factor: int = setting(3, "One in so many goes on, to so many times the rows.", unit="count", ge=2)
    least_rows: int = setting(16, "Rows of the first rung.", unit="count", ge=1)
    most_edits: int = setting(2, "A candidate of a round is up to so many changes away.", unit="count", ge=1)
    patience: int = setting(3, "Rounds without gain after which it ends.", unit="count", ge=1)

    def search(self, problem: Problem[Any], draw: np.random.Generator) -> None:
        """Hold rounds.

        Args:
            problem: what is searched.
            draw: of everything random.
        """
        best, score, idle = problem.start, problem.score(problem.start), 0
        while idle < self.patience:
            idle += 1
            for found, candidate in self._round(problem, best, draw):
                if found.key > score.key:
                    best, score, idle = candidate, found, 0

    def _round(self, problem: Problem[Any], best: Any, draw: np.random.Generator) -> list[tuple[Any, Any]]:
        near = problem.propose(best, self.candidates, draw)
        grown_on = [grown(problem, one, int(draw.integers(self.most_edits)), draw) for one in near]
        left = list({problem.identity(one): one for one in grown_on}.values())
        rows, found = min(self.least_rows, problem.rows), list[tuple[Any, Any]]()
        while left:
            found = problem.scored(left, rows)
            if rows == problem.rows:
                return found
            left = [candidate for _, candidate in found[: math.ceil(len(found) / self.factor)]]
            rows = min(rows * self.factor, problem.rows)
        return found
