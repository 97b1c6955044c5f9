"""What a language model did on rows: the likelihood of what was to be written, and what it wrote itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest

import numpy as np

from tunesmith.core.arrays import Array, Codes

# Numbers of one answer that add up over answers: (answer, references) -> (k,).
Statistic = Callable[[str, Sequence[str]], Sequence[float]]


@dataclass(frozen=True)
class Written:
    """Likelihoods of the references, and answers to some of the rows.

    Args:
        nats: (rows,), -log p of the learned tokens, summed. [nats]
        tokens: (rows,), learned tokens. [count]
        characters: (rows,), of the learned text. [count]
        answered: (A,), the rows that were answered.
        answers: what the model wrote, one per answered row.
        right: references of each answered row, the first one the learned one.
    """

    nats: Array
    tokens: Codes
    characters: Codes
    answered: Codes = field(default_factory=lambda: np.zeros(0, np.int64))
    answers: list[str] = field(default_factory=list)
    right: list[list[str]] = field(default_factory=list)
    _statistics: dict[str, Array] = field(default_factory=dict, repr=False, compare=False)

    @property
    def rows(self) -> int:
        """How many rows. [count]"""
        return len(self.nats)

    @property
    def references(self) -> Codes:
        """(rows,), what tells rows apart: their learned tokens. [count]"""
        return self.tokens

    @property
    def row_loss(self) -> Array:
        """(rows,), mean -log p of the learned tokens. [nats]"""
        return self.nats / np.maximum(self.tokens, 1)

    @property
    def loss(self) -> float:
        """Mean -log p over all learned tokens. [nats]"""
        return float(self.nats.sum() / max(1, self.tokens.sum()))

    def streams(self) -> list[list[str | None]]:
        """Return the references as sacrebleu takes them: the first of every answer, the second of every answer, ...

        Returns:
            Lists of A texts, None where an answer has no more references.
        """
        return [list(texts) for texts in zip_longest(*self.right)]

    def sample(self, weights: Array | None = None) -> WrittenSample:
        """Weight the rows, all alike when nothing is given.

        Args:
            weights: (rows,), how often each row counts.
        Returns:
            The sample that metrics read.
        """
        return WrittenSample(self, np.ones(self.rows) if weights is None else weights)

    def statistics(self, name: str, of: Statistic) -> Array:
        """Compute numbers of every answer, once.

        Args:
            name: under which they are kept.
            of: computes them for one answer.
        Returns:
            (A, k).
        """
        if name not in self._statistics:
            found = [list(of(answer, right)) for answer, right in zip(self.answers, self.right, strict=True)]
            self._statistics[name] = np.array(found, dtype=np.float64)
        return self._statistics[name]


@dataclass(frozen=True)
class WrittenSample:
    """What was written, with a weight per row: a bootstrap resample counts a row 0, 1, 2, ... times.

    Args:
        of: what was written.
        weights: (rows,).
    """

    of: Written
    weights: Array

    def total(self, values: Array | Codes) -> float:
        """Add values up over the rows.

        Args:
            values: (rows,).
        Returns:
            The weighted sum.
        """
        return float(self.weights @ values)

    @cached_property
    def answer_weights(self) -> Array:
        """(A,), of the answered rows."""
        found: Array = self.weights[self.of.answered]
        return found

    def sums(self, name: str, of: Statistic) -> Array | None:
        """Add the numbers of answers up.

        Args:
            name: of the numbers.
            of: computes them for one answer.
        Returns:
            (k,); None when no answered row counts.
        """
        if not self.answer_weights.any():
            return None
        return self.answer_weights @ self.of.statistics(name, of)

    def mean(self, name: str, of: Callable[[str, Sequence[str]], float]) -> float:
        """Average a number over the answers.

        Args:
            name: of the number.
            of: computes it for one answer.
        Returns:
            The weighted mean; NaN when no answered row counts.
        """
        found = self.sums(name, lambda answer, right: (of(answer, right),))
        return float("nan") if found is None else float(found[0] / self.answer_weights.sum())
