"""What a strategy searches: candidates that can be changed, crossed and scored until the budget is spent."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

Candidate = TypeVar("Candidate")


class BudgetSpent(Exception):
    """No evaluation is left; it ends a strategy, and no user sees it."""


@dataclass(frozen=True)
class Score:
    """How good a candidate is on some rows.

    Args:
        value: higher is better.
        loss: decides among equal values; lower is better.
        rows: it was scored on. [count]
    """

    value: float
    loss: float
    rows: int

    @property
    def key(self) -> tuple[float, float]:
        """What candidates are compared by, higher is better."""
        return self.value, -self.loss


class Problem(ABC, Generic[Candidate]):
    """Candidates, how to change them, and what they are worth.

    Args:
        start: the candidate to begin with.
        rows: the rows that choose, in a fixed drawn order; a score on n rows is one on the first n. [count]
    """

    def __init__(self, start: Candidate, rows: int) -> None:
        self.start, self.rows = start, rows

    @abstractmethod
    def identity(self, candidate: Candidate) -> str:
        """Name a candidate.

        Args:
            candidate: any.
        Returns:
            The same text for equal candidates only.
        """

    @abstractmethod
    def propose(self, candidate: Candidate, count: int, draw: np.random.Generator) -> list[Candidate]:
        """Change a candidate in several ways.

        Args:
            candidate: any.
            count: so many at most. [count]
            draw: of what is drawn.
        Returns:
            Different candidates, the given one not among them.
        """

    @abstractmethod
    def cross(self, first: Candidate, second: Candidate, draw: np.random.Generator) -> Candidate:
        """Take some parts of one candidate and the others of another.

        Args:
            first: one.
            second: the other.
            draw: of what is drawn.
        Returns:
            Their child.
        """

    @abstractmethod
    def score(self, candidate: Candidate, rows: int | None = None) -> Score:
        """Score a candidate; one that was scored before on as many rows costs nothing.

        Args:
            candidate: any.
            rows: on the first so many rows; all when None. [count]
        Returns:
            The score.
        Raises:
            BudgetSpent: the budget does not allow it.
        """

    def scored(self, candidates: list[Candidate], rows: int | None = None) -> list[tuple[Score, Candidate]]:
        """Score several candidates and sort them.

        Args:
            candidates: any.
            rows: on the first so many rows; all when None. [count]
        Returns:
            The best first; equals in the order given.
        Raises:
            BudgetSpent: the budget does not allow all of them.
        """
        found = [(self.score(candidate, rows), candidate) for candidate in candidates]
        return sorted(found, key=lambda pair: pair[0].key, reverse=True)


def grown(problem: Problem[Any], candidate: Any, steps: int, draw: np.random.Generator) -> Any:
    """Change a candidate several times in a row.

    Args:
        problem: proposes.
        candidate: to begin with.
        steps: so many changes. [count]
        draw: of what is drawn.
    Returns:
        The changed candidate; the given one where nothing was proposed.
    """
    for _ in range(steps):
        found = problem.propose(candidate, 1, draw)
        candidate = found[0] if found else candidate
    return candidate
