"""Several prompts as one: vote, average, weighted mean; and how much the prompts differ."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from tunesmith.core.arrays import Array
from tunesmith.evaluation.predictions import Predictions
from tunesmith.runs.mixing import likeliest

_FOLDS = 5


def vote(members: Sequence[Predictions]) -> Predictions:
    """Let every member name one class per row; ties are decided by the mean probability.

    Args:
        members: predictions for the same rows.
    Returns:
        p = (votes + mean probability) / (members + 1), so that no mean outweighs a vote.
    """
    votes = sum(np.eye(member.classes)[member.predicted] for member in members)
    return Predictions((votes + _mean(members)) / (len(members) + 1), members[0].references)


def average(members: Sequence[Predictions]) -> Predictions:
    """Average the probabilities.

    Args:
        members: predictions for the same rows.
    Returns:
        Their mean.
    """
    return Predictions(_mean(members), members[0].references)


def weighted(members: Sequence[Predictions], seed: int) -> tuple[Predictions, Array]:
    """Average with weights of the highest likelihood; no row is scored with weights that it helped to choose.

    Args:
        members: predictions for the same rows.
        seed: of the folds.
    Returns:
        The mean, each fifth of the rows with weights from the other four, and the weights that all rows choose.
    """
    rows = members[0].rows
    fold = np.random.default_rng(seed).permutation(rows) % min(_FOLDS, rows)
    found = np.zeros_like(members[0].probabilities)
    for number in range(int(fold.max()) + 1):
        out = fold == number
        weights = likeliest([_some(member, ~out) for member in members]) if (~out).any() else _even(members)
        found[out] = np.tensordot(weights, np.stack([member.probabilities[out] for member in members]), axes=1)
    return Predictions(found, members[0].references), likeliest(members)


def diversity(members: Sequence[Predictions]) -> dict[str, Any]:
    """Measure how much members differ.

    Args:
        members: predictions for the same rows, at least two.
    Returns:
        "disagreement", the mean share of rows on which two members differ; "kappa", the mean of Cohen's kappa over
        pairs, 1 for members that always agree and 0 for agreement by chance; "all_wrong", the share of rows that no
        member has right, which no choice among them mends; "oracle", the share that at least one has right.
    """
    answers = [member.predicted for member in members]
    pairs = list(combinations(answers, 2))
    right = np.stack([member.correct for member in members])
    return {
        "disagreement": float(np.mean([(a != b).mean() for a, b in pairs])),
        "kappa": float(np.mean([kappa(a, b) for a, b in pairs])),
        "all_wrong": float((~right).all(0).mean()),
        "oracle": float(right.any(0).mean()),
    }


def kappa(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> float:
    """Compute Cohen's kappa of two lists of answers.

    Args:
        first: (rows,), class codes.
        second: (rows,), class codes.
    Returns:
        (agreement - agreement by chance) / (1 - agreement by chance); 1 where both always give the same one answer.
    Source: Cohen 1960, Educational and Psychological Measurement 20, 37-46.
    """
    from sklearn.metrics import cohen_kappa_score

    return 1.0 if np.array_equal(first, second) else float(cohen_kappa_score(first, second))


def _mean(members: Sequence[Predictions]) -> Array:
    mean: Array = np.mean([member.probabilities for member in members], axis=0)
    return mean


def _some(member: Predictions, rows: np.ndarray[Any, Any]) -> Predictions:
    return Predictions(member.probabilities[rows], member.references[rows])


def _even(members: Sequence[Predictions]) -> Array:
    return np.full(len(members), 1 / len(members))
