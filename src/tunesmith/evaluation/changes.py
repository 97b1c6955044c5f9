"""What changed between two models' answers to the same rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tunesmith.core.arrays import Array, Codes
from tunesmith.evaluation.metrics.base import Metric
from tunesmith.evaluation.predictions import Predictions
from tunesmith.evaluation.statistics import Result, metric_sign
from tunesmith.evaluation.written import Written


@dataclass(frozen=True)
class Answer:
    """One row as two models answered it.

    Args:
        row: its place among the rows of the split.
        right: what it should be.
        first: what the first model answered, with its score or probability.
        second: the same of the second model.
    """

    row: int
    right: str
    first: str
    second: str


@dataclass(frozen=True)
class Change:
    """What the first of two models does otherwise than the second.

    Args:
        first: place of one model.
        second: place of the other.
        gained: rows that the first has right, or better, and the second has not; the clearest first.
        lost: the opposite.
        confusions: (true label, predicted label, rows of the first, rows of the second) that were confused, the largest
            change first; empty for models that write.
    """

    first: int
    second: int
    gained: list[Answer]
    lost: list[Answer]
    confusions: list[tuple[str, str, int, int]] = field(default_factory=list)

    def plain(self, names: Sequence[str], where: Callable[[int], str]) -> dict[str, Any]:
        """Return plain values.

        Args:
            names: of the models.
            where: a row stands.
        Returns:
            Names, rows and confusions.
        """
        rows = {
            key: [{"where": where(one.row), "right": one.right, "first": one.first, "second": one.second}
                  for one in some]
            for key, some in (("gained", self.gained), ("lost", self.lost))
        }  # fmt: skip
        keys = ("true", "predicted", "first", "second")
        confusions = [dict(zip(keys, one, strict=True)) for one in self.confusions]
        return {"first": names[self.first], "second": names[self.second], **rows, "confusions": confusions}


def changes(places: tuple[int, int], found: tuple[Result, Result], metric: Metric, labels: Sequence[str]) -> Change:
    """Compare two models row by row.

    Args:
        places: of the two among others.
        found: what they did, for the same rows and labels.
        metric: that says which answer of models that write is better.
        labels: names of the codes; empty for models that write.
    Returns:
        What changed.
    """
    one, two = found
    if isinstance(one, Predictions) and isinstance(two, Predictions):
        return _told(places, one, two, labels)
    assert isinstance(one, Written) and isinstance(two, Written)
    return _worded(places, one, two, metric)


def _told(places: tuple[int, int], one: Predictions, two: Predictions, labels: Sequence[str]) -> Change:
    rows = np.arange(one.rows)
    gain = one.probabilities[rows, one.references] - two.probabilities[rows, two.references]

    def answers(picked: Codes, order: Array) -> list[Answer]:
        return [
            Answer(int(row), labels[one.references[row]], _with_share(one, row, labels), _with_share(two, row, labels))
            for row in picked[np.argsort(order[picked], kind="stable")]
        ]

    gained, lost = np.flatnonzero(one.correct & ~two.correct), np.flatnonzero(two.correct & ~one.correct)
    return Change(*places, answers(gained, -gain), answers(lost, gain), _confused(one, two, labels))


def _with_share(found: Predictions, row: int, labels: Sequence[str]) -> str:
    return f"{labels[found.predicted[row]]} ({100 * found.confidence[row]:.0f} %)"


def _confused(one: Predictions, two: Predictions, labels: Sequence[str]) -> list[tuple[str, str, int, int]]:
    counts = [found.sample().confusion.astype(int) for found in (one, two)]
    pairs = [
        (labels[true], labels[predicted], int(counts[0][true, predicted]), int(counts[1][true, predicted]))
        for true, predicted in zip(*np.nonzero(counts[0] + counts[1]), strict=True)
        if true != predicted
    ]
    return sorted(pairs, key=lambda pair: (-abs(pair[2] - pair[3]), -pair[2] - pair[3], pair[:2]))


def _worded(places: tuple[int, int], one: Written, two: Written, metric: Metric) -> Change:
    """Rank rows by how much better one model's answer is, or one model's likelihood of the reference."""
    first, second = (scores_by_row(metric, found) for found in (one, two))
    gain = metric_sign(metric) * (first - second)
    rows = one.answered if metric.reads == "answers" else np.arange(one.rows)
    at = {int(row): place for place, row in enumerate(one.answered)}

    def answer(place: int) -> Answer:
        row = int(rows[place])
        said = [_said(found, at.get(row), score[place]) for found, score in ((one, first), (two, second))]
        return Answer(row, one.right[at[row]][0] if row in at else "", *said)

    order = np.argsort(-gain, kind="stable")
    gained = [answer(int(place)) for place in order if gain[place] > 0]
    return Change(*places, gained, [answer(int(place)) for place in order[::-1] if gain[place] < 0])


def _said(found: Written, place: int | None, score: float) -> str:
    return f"{'' if place is None else found.answers[place]} [{score:.3f}]".strip()


def scores_by_row(metric: Metric, found: Written) -> Array:
    """Compute a metric of every row alone.

    Args:
        metric: of likelihoods or of answers.
        found: what was written.
    Returns:
        (rows,), nats per token for likelihoods; for answers one number per answer.
    """
    if metric.reads != "answers":
        return found.row_loss
    alone = [
        Written(found.nats[:1], found.tokens[:1], found.characters[:1], np.zeros(1, np.int64), [answer], [right])
        for answer, right in zip(found.answers, found.right, strict=True)
    ]
    return np.array([metric.compute(one.sample()) for one in alone])
