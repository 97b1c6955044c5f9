"""The mean of all members' weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

from tunesmith.core.registry import register
from tunesmith.ensembles.combining.base import Combination, Key


@register("combinations")
class Soup(Combination):
    """Average the weights of all members' deltas and heads: one delta is left, which costs what one member costs.

    theta = (1 / K) sum_k theta_k. The members are of one shape and begin at the same weights.

    Source: Wortsman et al. 2022, arXiv:2203.05482, uniform soup. Differs: deltas in place of whole models.
    """

    name: ClassVar[str] = "soup"
    paper: ClassVar[str] = "Wortsman et al. 2022, arXiv:2203.05482"
    keeps: ClassVar[Literal["one", "all", "mean"]] = "mean"

    def choose(self, keys: Sequence[Key], scored: Callable[[Sequence[int]], Key]) -> list[int]:
        """Take all."""
        return list(range(len(keys)))
