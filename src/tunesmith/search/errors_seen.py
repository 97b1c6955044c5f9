"""What a trial gets wrong on validation rows: which classes, which lengths, and how it does on rows that trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tunesmith.evaluation.metrics.base import Metric
from tunesmith.evaluation.predictions import Predictions
from tunesmith.evaluation.statistics import Result
from tunesmith.training.corpus import Split

_PAIRS, _LABELS, _PARTS = 10, 20, 3  # confused pairs and labels that are listed, parts by length


@dataclass(frozen=True)
class Pair:
    """Rows of one label that were taken for another.

    Args:
        true: label.
        predicted: label.
        rows: so many. [count]
    """

    true: str
    predicted: str
    rows: int


@dataclass(frozen=True)
class LabelErrors:
    """How one label does.

    Args:
        label: it.
        rows: of it on validation. [count]
        wrong: of these. [count]
        trained: rows of it that trained. [count]
    """

    label: str
    rows: int
    wrong: int
    trained: int


@dataclass(frozen=True)
class LengthErrors:
    """How rows of some lengths do.

    Args:
        longest: of them. [tokens]
        rows: so many. [count]
        wrong: share of them that is wrong; the mean loss where rows have no label.
    """

    longest: int
    rows: int
    wrong: float


@dataclass(frozen=True)
class Errors:
    """What a trial gets wrong.

    Args:
        rows: of validation. [count]
        wrong: of these; 0 where rows have no label. [count]
        score: on validation, of the deciding metric.
        trained_score: the same on rows that trained.
        best_epoch: whose state was kept. [count]
        epochs: trained. [count]
        curve: score on validation after each epoch that was scored.
        confused: pairs of labels, the most frequent first.
        labels: those with most errors first.
        lengths: rows from short to long, in parts of about equal size.
        cut: validation rows that were cut at the longest length. [count]
        labelled: whether rows have labels, so that they can be wrong.
    """

    rows: int
    wrong: int
    score: float
    trained_score: float
    best_epoch: int
    epochs: int
    curve: list[float]
    confused: list[Pair] = field(default_factory=list)
    labels: list[LabelErrors] = field(default_factory=list)
    lengths: list[LengthErrors] = field(default_factory=list)
    cut: int = 0
    labelled: bool = True

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Errors:
        """Read it from plain values.

        Args:
            values: from `plain`.
        Returns:
            The errors.
        """
        return cls(
            **{
                **values,
                "confused": [Pair(**one) for one in values["confused"]],
                "labels": [LabelErrors(**one) for one in values["labels"]],
                "lengths": [LengthErrors(**one) for one in values["lengths"]],
            }
        )

    def gap(self, higher_is_better: bool) -> float:
        """Say how much better rows do that trained: what was learned by heart.

        Args:
            higher_is_better: of the deciding metric.
        Returns:
            The difference, positive for the usual case.
        """
        return (self.trained_score - self.score) * (1 if higher_is_better else -1)


def confused_pairs(found: Predictions, names: Sequence[str]) -> list[Pair]:
    """Count which labels are taken for which.

    Args:
        found: predictions.
        names: of the codes.
    Returns:
        The most frequent first, equals in the order of their names.
    """
    wrong = found.cells[~found.correct]
    cells, counts = np.unique(wrong, return_counts=True)
    order = np.lexsort((cells, -counts))[:_PAIRS]
    return [
        Pair(names[int(cells[one]) // found.classes], names[int(cells[one]) % found.classes], int(counts[one]))
        for one in order
    ]


def label_errors(found: Predictions, names: Sequence[str], trained: np.ndarray[Any, Any]) -> list[LabelErrors]:
    """Count errors by label.

    Args:
        found: predictions.
        names: of the codes.
        trained: (C,), rows of each that trained.
    Returns:
        Labels with errors, those with most first.
    """
    rows = np.bincount(found.references, minlength=found.classes)
    wrong = np.bincount(found.references[~found.correct], minlength=found.classes)
    order = [code for code in np.lexsort((np.arange(found.classes), -wrong)) if wrong[code]][:_LABELS]
    return [LabelErrors(names[code], int(rows[code]), int(wrong[code]), int(trained[code])) for code in order]


def length_errors(wrong: np.ndarray[Any, Any], lengths: np.ndarray[Any, Any]) -> list[LengthErrors]:
    """Say how errors depend on length.

    Args:
        wrong: (rows,), whether each is wrong, or its loss.
        lengths: (rows,), of the rows before they were cut. [tokens]
    Returns:
        Parts of about equal size, short rows first.
    """
    order = np.argsort(lengths, kind="stable")
    return [
        LengthErrors(int(lengths[part].max()), len(part), float(np.mean(wrong[part])))
        for part in np.array_split(order, _PARTS)
        if len(part)
    ]


@dataclass(frozen=True)
class Answers:
    """What a trial did.

    Args:
        result: on validation rows.
        split: those rows.
        trained: what it did on rows that trained.
        metric: that decides.
        names: of the labels; none where rows have no label.
        counts: (C,), training rows of each label.
    """

    result: Result
    split: Split
    trained: Result
    metric: Metric
    names: Sequence[str]
    counts: np.ndarray[Any, Any]

    def errors(self, curve: Sequence[float], best_epoch: int, epochs: int) -> Errors:
        """Sum up what is wrong.

        Args:
            curve: score after each epoch.
            best_epoch: whose state was kept. [count]
            epochs: trained. [count]
        Returns:
            The errors.
        """
        found, tokens = self.result, self.split.tokens
        labelled = isinstance(found, Predictions)
        wrong = ~found.correct if isinstance(found, Predictions) else found.row_loss
        return Errors(
            rows=found.rows,
            wrong=int(wrong.sum()) if labelled else 0,
            score=float(self.metric.compute(found.sample())),
            trained_score=float(self.metric.compute(self.trained.sample())),
            best_epoch=best_epoch,
            epochs=epochs,
            curve=[float(score) for score in curve],
            confused=confused_pairs(found, self.names) if isinstance(found, Predictions) else [],
            labels=label_errors(found, self.names, self.counts) if isinstance(found, Predictions) else [],
            lengths=length_errors(np.asarray(wrong, dtype=np.float64), tokens.full_lengths),
            cut=int(tokens.truncated),
            labelled=labelled,
        )
