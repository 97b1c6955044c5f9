"""Episodes: small classification tasks drawn from labelled rows, N ways, K shots, Q queries per way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunesmith.core.errors import DataError


@dataclass(frozen=True)
class Episodes:
    """E episodes of one shape: which rows support, which are asked, and which way each belongs to.

    Args:
        support: (E, S), row numbers.
        support_ways: (E, S), 0 <= way < ways.
        query: (E, Q), row numbers.
        query_ways: (E, Q); the answers.
        ways: N. [count]
    """

    support: Tensor
    support_ways: Tensor
    query: Tensor
    query_ways: Tensor
    ways: int

    def __len__(self) -> int:
        return len(self.support)

    def __getitem__(self, place: slice) -> Episodes:
        """Take some of the episodes."""
        own = self
        return Episodes(own.support[place], own.support_ways[place], own.query[place], own.query_ways[place], own.ways)


@dataclass(frozen=True)
class EpisodeShape:
    """How large an episode is.

    Args:
        ways: classes, N. [count]
        shots: support rows per class, K. [count]
        queries: rows that are asked per class, Q. [count]
    """

    ways: int
    shots: int
    queries: int

    def __str__(self) -> str:
        return f"{self.ways}-way {self.shots}-shot"


class EpisodeSampler:
    """Draws episodes from labelled rows; episode `n` of a seed is the same whatever was drawn before.

    Args:
        labels: (rows,), a class code per row.
        label_names: by code, for errors.
        shape: of the episodes.
        seed: of the draws.
        source: what to call the rows in errors.
    Raises:
        DataError: more ways than classes, or a class with fewer rows than an episode takes.
    Example:
        >>> sampler = EpisodeSampler([0, 0, 0, 1, 1, 1], ["a", "b"], EpisodeShape(2, 1, 2), seed=0)
        >>> drawn = sampler.draw(0, 5)
        >>> drawn.support.shape, drawn.query.shape
        (torch.Size([5, 2]), torch.Size([5, 4]))
    """

    def __init__(
        self,
        labels: Sequence[int] | np.ndarray[Any, Any],
        label_names: Sequence[str],
        shape: EpisodeShape,
        seed: int,
        source: str = "the data",
    ) -> None:
        self.shape, self.seed = shape, seed
        self.codes = codes = np.asarray(labels, np.int64)
        self.members = [np.flatnonzero(codes == code) for code in np.unique(codes)]
        _check(shape, self.members, [label_names[code] for code in np.unique(codes)], source)

    def draw(self, first: int, count: int) -> Episodes:
        """Draw episodes.

        Args:
            first: number of the first one.
            count: how many follow, with it. [count]
        Returns:
            The episodes `first` to `first + count - 1` of the seed.
        """
        drawn = [self._one(number) for number in range(first, first + count)]
        support = torch.from_numpy(np.stack([rows[:, : self.shape.shots].ravel() for rows in drawn]))
        query = torch.from_numpy(np.stack([rows[:, self.shape.shots :].ravel() for rows in drawn]))
        ways = torch.arange(self.shape.ways)
        return Episodes(
            support,
            ways.repeat_interleave(self.shape.shots).expand(count, -1),
            query,
            ways.repeat_interleave(self.shape.queries).expand(count, -1),
            self.shape.ways,
        )

    def _one(self, number: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Draw one episode's rows, (ways, shots + queries), none of them twice."""
        draw = np.random.default_rng([self.seed, number])
        classes = draw.choice(len(self.members), self.shape.ways, replace=False)
        each = self.shape.shots + self.shape.queries
        return np.stack([draw.choice(self.members[code], each, replace=False) for code in classes])


def _check(shape: EpisodeShape, members: Sequence[Any], names: Sequence[str], source: str) -> None:
    wrong = {name: value for name, value in vars(shape).items() if value < (2 if name == "ways" else 1)}
    if wrong:
        name, value = next(iter(wrong.items()))
        raise DataError(f"{name}={value}: an episode has at least 2 ways, 1 shot and 1 query per way.")
    if shape.ways > len(members):
        lower = f"Lower ways to at most {len(members)}, or give" if len(members) > 1 else "Give"
        raise DataError(
            f"{shape} episodes need {shape.ways} classes, and {source} holds {len(members)}. {lower} more classes."
        )
    need = shape.shots + shape.queries
    small = sorted((len(rows), name) for rows, name in zip(members, names, strict=True) if len(rows) < need)
    if small:
        rows, name = small[0]
        raise DataError(
            f"{shape} episodes with {shape.queries} queries per way take {need} rows of a class, and {len(small)} "
            f"classes of {source} have fewer: '{name}' has {rows}. Lower shots or queries, or leave these classes out."
        )
