"""What a strategy of choosing demonstrations is: it ranks the rows that may be shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from tunesmith.core.errors import RecipeError

Vectors = np.ndarray[Any, np.dtype[np.floating[Any]]]
Embed = Callable[[Sequence[str]], Vectors]  # texts to (texts, D)
Rate = Callable[[Sequence[int]], Vectors]  # rows of the pool to (rows,), higher is more useful


@dataclass(frozen=True)
class Pool:
    """Training rows that may be shown.

    Args:
        texts: of the rows, as the prompt shows them without their answers.
        labels: of the rows.
        seed: of what is drawn.
        embed: turns texts into vectors, for strategies that compare them.
        rate: says how useful rows are as demonstrations, for strategies that order by it.
    """

    texts: Sequence[str]
    labels: Sequence[str]
    seed: int = 0
    embed: Embed | None = None
    rate: Rate | None = None

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def directions(self) -> Vectors:
        """Vectors of the rows, (rows, D), each of length 1."""
        return self.directed(self.texts)

    def directed(self, texts: Sequence[str]) -> Vectors:
        """Turn texts into vectors of length 1.

        Args:
            texts: any.
        Returns:
            (texts, D).
        """
        if self.embed is None:
            raise RecipeError("prompt.demonstrations.strategy: it compares texts, and nothing here turns them into "
                              "vectors. Choose random or balanced.")  # fmt: skip
        found = np.asarray(self.embed(texts), dtype=np.float64)
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)

    def shuffled(self) -> list[int]:
        """Return the rows in an order drawn with the seed."""
        return [int(row) for row in np.random.default_rng(self.seed).permutation(len(self))]


class Strategy:
    """Base of every strategy. A strategy's file registers one subclass with `@register("demonstrations")`.

    `per_row` says that each row is shown demonstrations of its own; then `near` ranks them, else `order` does, once.
    `compares` says that it needs the model, for vectors or for rates.
    """

    name: ClassVar[str]
    per_row: ClassVar[bool] = False
    compares: ClassVar[bool] = False

    def order(self, pool: Pool, count: int) -> list[int]:
        """Rank the pool for all rows alike.

        Args:
            pool: training rows.
            count: so many of the best are shown; the rest may be in any order. [count]
        Returns:
            All rows of the pool, the best first.
        """
        raise NotImplementedError

    def near(self, pool: Pool, texts: Sequence[str]) -> Vectors:
        """Score the pool for each of some rows.

        Args:
            pool: training rows.
            texts: of the rows, as the prompt shows them.
        Returns:
            (texts, rows of the pool), higher is better.
        """
        raise NotImplementedError


def dealt(order: Sequence[int], labels: Sequence[str]) -> list[int]:
    """Deal rows out label by label, so that any beginning has as many of each label as can be.

    Args:
        order: rows, the best first.
        labels: of all rows.
    Returns:
        The same rows: the best of each label, then the second best, and so on.
    """
    seen: dict[str, int] = {}
    turns = []
    for place, row in enumerate(order):
        seen[labels[row]] = seen.get(labels[row], -1) + 1
        turns.append((seen[labels[row]], place, row))
    return [row for _, _, row in sorted(turns)]
