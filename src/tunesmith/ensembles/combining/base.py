"""What a combination is: it makes one answer of several members', or one delta of theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np

from tunesmith.core.arrays import Array, Codes
from tunesmith.core.settings import Component

Key = tuple[float, float]  # the deciding score and the validation loss, lower is better

SMALLEST = 1e-12  # below any probability that matters; keeps logarithms finite


class Combination(Component):
    """Base of every combination. Its file registers one subclass with `@register("combinations")`."""

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    # What is left in the run: the one best member, all of them, or one delta that is the mean of their weights.
    keeps: ClassVar[Literal["one", "all", "mean"]] = "all"
    # The rows that choose: validation, or training rows, each answered by members that did not train on it.
    learns_from: ClassVar[Literal["nothing", "validation", "out-of-fold"]] = "nothing"

    @property
    def parts(self) -> int:
        """How many folds of the training rows are answered by members that trained on the others. [count]"""
        return 0

    def learn(self, table: Array | None, labels: Codes | None, weights: Array | None) -> dict[str, Array]:
        """Choose what answers are put together with.

        Args:
            table: (K, R, C), what the members answered on the rows that choose; None where nothing is learned from.
            labels: (R,), what is right there.
            weights: (K,), how much the members' maker trusts each of them, together 1; None for all alike.
        Returns:
            Arrays by name, saved with the run; the maker's weights, where there are some, unless said otherwise.
        """
        return {} if weights is None else {"weights": weights}

    def answer(self, table: Array, learned: Mapping[str, Array]) -> Array:
        """Put the members' answers together.

        Args:
            table: (K, R, C), probabilities.
            learned: from `learn`.
        Returns:
            (R, C), every row summing to 1.
        """
        raise NotImplementedError

    def choose(self, keys: Sequence[Key], scored: Callable[[Sequence[int]], Key]) -> list[int]:
        """Choose the members whose weights are averaged, where the combination keeps a mean.

        Args:
            keys: of each member alone on validation, lower is better.
            scored: the key of the mean of some members on validation.
        Returns:
            Their numbers, at least one.
        """
        raise NotImplementedError


def even(table: Array, learned: Mapping[str, Array]) -> Array:
    """Return how much each member counts.

    Args:
        table: (K, R, C).
        learned: with "weights", or without.
    Returns:
        (K,), together 1.
    """
    return learned.get("weights", np.full(len(table), 1 / len(table)))
