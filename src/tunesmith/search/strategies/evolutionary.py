"""Evolution: parents are chosen by tournament, crossed and changed; the best live on."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.search.problem import Problem, Score, grown
from tunesmith.search.strategies.base import Strategy


@register("strategies")
class Evolutionary(Strategy):
    """A population whose children replace its worst members.

    Source: prompts by evolution: Guo et al. 2023 (EvoPrompt), arXiv:2309.08532. Differs: children are crossed by parts
        and changed by edits; no language model writes them.
    """

    name: ClassVar[str] = "evolutionary"
    paper: ClassVar[str] = "Guo et al. 2023, arXiv:2309.08532"

    population: int = setting(10, "Candidates that live.", unit="count", ge=2)
    tournament: int = setting(3, "Of so many drawn the best becomes a parent.", unit="count", ge=1)
    crossing: float = setting(0.5, "Share of children with two parents.", unit="fraction", ge=0, le=1)
    patience: int = setting(5, "Generations without a better best after which it ends.", unit="count", ge=1)

    def search(self, problem: Problem[Any], draw: np.random.Generator) -> None:
        """Breed.

        Args:
            problem: what is searched.
            draw: of everything random.
        """
        first = [problem.start, *problem.propose(problem.start, self.population - 1, draw)]
        living, idle = problem.scored(first), 0
        while idle < self.patience:
            best = living[0][0].key
            children = [self._child(problem, living, draw) for _ in range(self.population)]
            known = {problem.identity(candidate) for _, candidate in living}
            fresh = {problem.identity(child): child for child in children}
            found = problem.scored([child for name, child in fresh.items() if name not in known])
            living = sorted([*living, *found], key=lambda pair: pair[0].key, reverse=True)[: self.population]
            idle = 0 if living[0][0].key > best else idle + 1

    def _child(self, problem: Problem[Any], living: list[tuple[Score, Any]], draw: np.random.Generator) -> Any:
        child = self._parent(living, draw)
        if draw.random() < self.crossing:
            child = problem.cross(child, self._parent(living, draw), draw)
        return grown(problem, child, 1, draw)

    def _parent(self, living: list[tuple[Score, Any]], draw: np.random.Generator) -> Any:
        return living[int(draw.integers(len(living), size=self.tournament).min())][1]  # sorted, the best first
