"""The best states of a trial so far: one, or the best few."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Key = tuple[float, float]  # the deciding score and the validation loss, lower is better


@dataclass(frozen=True)
class Ranked:
    """What trains, as it was after an epoch.

    Args:
        key: what it is ranked by.
        epoch: after which, from 1.
        state: one tensor per parameter of the delta and the head.
    """

    key: Key
    epoch: int
    state: list[Tensor]


class Ranking:
    """The best states by validation, best first; of equal ones the earlier.

    Args:
        most: so many are kept. [count]
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.states: list[Ranked] = []

    @property
    def best(self) -> Ranked | None:
        """The best one so far; None before the first."""
        return self.states[0] if self.states else None

    def add(self, key: Key, epoch: int, state: Sequence[Tensor]) -> bool:
        """Take a state in where it is among the best.

        Args:
            key: what it is ranked by; a score that is no number, as of texts where none was written, comes last.
            epoch: after which, from 1.
            state: copied where it is taken in.
        Returns:
            Whether it is the best.
        """
        key = rankable(key[0]), key[1]
        place = bisect_right([one.key for one in self.states], key)
        if place < self._most:
            self.states.insert(place, Ranked(key, epoch, [one.detach().clone() for one in state]))
            del self.states[self._most :]
        return place == 0

    def state(self) -> list[dict[str, Any]]:
        """Return the states for a checkpoint.

        Returns:
            A state for `resume`.
        """
        return [vars(one) for one in self.states]

    def resume(self, state: Sequence[Mapping[str, Any]], device: torch.device) -> None:
        """Go on from a state.

        Args:
            state: from `state`.
            device: of the parameters, where later states will lie beside these.
        """
        self.states = [Ranked(one["key"], one["epoch"], [part.to(device) for part in one["state"]]) for one in state]


def rankable(score: float) -> float:
    """Return a score to rank by.

    Args:
        score: lower is better.
    Returns:
        It; infinity for what is no number, as of texts where none was written, so that it comes last.
    """
    return math.inf if math.isnan(score) else score


def mean_state(states: Sequence[Ranked]) -> list[Tensor]:
    """Average states number by number.

    Args:
        states: at least one.
    Returns:
        One tensor per parameter.
    Source: Wortsman et al. 2022, arXiv:2203.05482, uniform soup. Differs: of the epochs of one run.
    """
    return mean_of([one.state for one in states])


def mean_of(states: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Average lists of tensors.

    Args:
        states: at least one, of the same shapes.
    Returns:
        One tensor per place.
    """
    return [torch.stack(parts).mean(0) for parts in zip(*states, strict=True)]
