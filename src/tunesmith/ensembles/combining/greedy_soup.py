"""The mean of those members' weights that are no worse together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

from tunesmith.core.registry import register
from tunesmith.ensembles.combining.base import Combination, Key


@register("combinations")
class GreedySoup(Combination):
    """Average the weights of members, the best first, each taken where the mean is no worse on validation with it.

    Source: Wortsman et al. 2022, arXiv:2203.05482, recipe 1. Differs: deltas in place of whole models.
    """

    name: ClassVar[str] = "greedy-soup"
    paper: ClassVar[str] = "Wortsman et al. 2022, arXiv:2203.05482"
    keeps: ClassVar[Literal["one", "all", "mean"]] = "mean"
    learns_from: ClassVar[Literal["nothing", "validation", "out-of-fold"]] = "validation"

    def choose(self, keys: Sequence[Key], scored: Callable[[Sequence[int]], Key]) -> list[int]:
        """Take the best member, and try the others in the order of their keys."""
        first, *others = sorted(range(len(keys)), key=keys.__getitem__)
        taken, best = [first], keys[first]
        for number in others:
            key = scored([*taken, number])
            if key <= best:
                taken, best = [*taken, number], key
        return sorted(taken)
