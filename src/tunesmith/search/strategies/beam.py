"""Beam search: several candidates are changed side by side, and the best of all stay."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.search.problem import Problem
from tunesmith.search.strategies.base import Strategy


@register("strategies")
class Beam(Strategy):
    """Change every candidate of the beam; the best of old and new ones are the next beam.

    Source: beam search over prompts: Pryzant et al. 2023, arXiv:2305.03495. Differs: changes come from the registered
        edits instead of a model's critique.
    """

    name: ClassVar[str] = "beam"
    paper: ClassVar[str] = "Pryzant et al. 2023, arXiv:2305.03495"

    width: int = setting(4, "Candidates that stay.", unit="count", ge=1)
    proposals: int = setting(4, "Changes of each that are tried per round.", unit="count", ge=1)
    patience: int = setting(3, "Rounds in which the beam stays the same after which it ends.", unit="count", ge=1)

    def search(self, problem: Problem[Any], draw: np.random.Generator) -> None:
        """Widen and cut.

        Args:
            problem: what is searched.
            draw: of everything random.
        """
        beam, idle = problem.scored([problem.start]), 0
        while idle < self.patience:
            names = {problem.identity(candidate) for _, candidate in beam}
            fresh: dict[str, Any] = {}
            for _, candidate in beam:
                for new in problem.propose(candidate, self.proposals, draw):
                    fresh.setdefault(problem.identity(new), new)
            found = problem.scored([new for name, new in fresh.items() if name not in names])
            beam = sorted([*beam, *found], key=lambda pair: pair[0].key, reverse=True)[: self.width]
            same = {problem.identity(candidate) for _, candidate in beam} == names
            idle = idle + 1 if same else 0
