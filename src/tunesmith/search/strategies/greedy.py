"""Greedy edit search: take the best of some changes, again and again."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.search.problem import Problem
from tunesmith.search.strategies.base import Strategy


@register("strategies")
class Greedy(Strategy):
    """Of some changes of the present candidate, move to the best where it is better.

    Source: edit search over prompts: Prasad et al. 2022 (GrIPS), arXiv:2203.07281. Differs: edits are those of this
        folder, and rounds without gain draw anew.
    """

    name: ClassVar[str] = "greedy"
    paper: ClassVar[str] = "Prasad et al. 2022, arXiv:2203.07281"

    proposals: int = setting(8, "Changes that are tried per round.", unit="count", ge=1)
    patience: int = setting(4, "Rounds without gain after which it ends.", unit="count", ge=1)

    def search(self, problem: Problem[Any], draw: np.random.Generator) -> None:
        """Climb.

        Args:
            problem: what is searched.
            draw: of everything random.
        """
        best, score, idle = problem.start, problem.score(problem.start), 0
        while idle < self.patience:
            idle += 1
            for found, candidate in problem.scored(problem.propose(best, self.proposals, draw))[:1]:
                if found.key > score.key:
                    best, score, idle = candidate, found, 0
