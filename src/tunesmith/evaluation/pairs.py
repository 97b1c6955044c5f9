"""Several models on the same rows: every pair tested, corrected together, and who cannot be told apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from tunesmith.evaluation.metrics.base import Metric
from tunesmith.evaluation.statistics import (
    Bootstrap,
    Estimate,
    Resampled,
    Result,
    difference,
    holding,
    holm,
    own_intervals,
    resampled_gains,
    two_sided,
)

_RESAMPLES = 2000  # at least
_PER_PAIR = 100  # resamples: the smallest p-value of a bootstrap, times the pairs, stays at or below 0.02


@dataclass(frozen=True)
class Pair:
    """What tells two models apart.

    Args:
        first: place of one model.
        second: place of the other.
        gain: of the first over the second by the paired bootstrap, positive when the first is better.
        bootstrap_p: p-value of the bootstrap.
        mcnemar_p: p-value of McNemar's exact test; None for metrics that are no share of rows.
        only_first: rows that the first alone has right; None likewise. [count]
        only_second: rows that the second alone has right; None likewise. [count]
        p_value: of McNemar's test where there is one, else of the bootstrap; corrected by Holm over all pairs.
    """

    first: int
    second: int
    gain: Estimate
    bootstrap_p: float
    mcnemar_p: float | None
    only_first: int | None
    only_second: int | None
    p_value: float

    def plain(self, names: Sequence[str]) -> dict[str, Any]:
        """Return plain values.

        Args:
            names: of the models.
        Returns:
            Names, gain and p-values.
        """
        return {
            "first": names[self.first],
            "second": names[self.second],
            **self.gain.plain(),
            "bootstrap_p": self.bootstrap_p,
            "mcnemar_p": self.mcnemar_p,
            "only_first": self.only_first,
            "only_second": self.only_second,
            "p_value": self.p_value,
        }


@dataclass(frozen=True)
class Compared:
    """Several models on the same rows.

    Args:
        scores: of each model, with its interval.
        pairs: every two models, the earlier first.
        groups: letters of each model; models with a letter in common are not told apart.
    """

    scores: list[Estimate]
    pairs: list[Pair]
    groups: list[str]


def enough(bootstrap: Bootstrap, models: int) -> Bootstrap:
    """Draw more often where many pairs are corrected together, so that a small p-value can still be seen.

    Args:
        bootstrap: to start from.
        models: so many. [count]
    Returns:
        With at least 2,000 resamples, and 100 per pair.
    """
    pairs = models * (models - 1) // 2
    return replace(bootstrap, resamples=max(bootstrap.resamples, _RESAMPLES, _PER_PAIR * pairs))


def compare_pairs(found: Sequence[Result], metric: Metric, bootstrap: Bootstrap) -> Compared:
    """Score models and test every two of them on the same rows.

    Args:
        found: what each did, for the same rows; the best first gives the best one the letter a.
        metric: to compare by.
        bootstrap: how to resample.
    Returns:
        Scores, pairs and groups.
    """
    scored = [Resampled(one, metric, bootstrap) for one in found]
    raw = [_pair(places, scored) for places in combinations(range(len(found)), 2)]
    pairs = [replace(one, p_value=p) for one, p in zip(raw, holm([one.p_value for one in raw]), strict=True)]
    apart = [(one.first, one.second) for one in pairs if one.p_value < 1 - bootstrap.confidence]
    ends = [
        own_intervals(own, [metric], bootstrap).get(metric.name) or bootstrap.interval(one.table)
        for own, one in zip(found, scored, strict=True)
    ]
    scores = [holding(one.value, *own) for one, own in zip(scored, ends, strict=True)]
    return Compared(scores, pairs, letters(len(found), apart))


def _pair(places: tuple[int, int], scored: Sequence[Resampled]) -> Pair:
    one, two = (scored[at] for at in places)
    found = difference(one, two)
    if one.right is None or two.right is None:
        return Pair(*places, found.estimate, found.p_value, None, None, None, found.p_value)
    bootstrap_p = two_sided(resampled_gains(one, two))
    ours, theirs = int((one.right & ~two.right).sum()), int((two.right & ~one.right).sum())
    p_value = mcnemar(ours, theirs)
    return Pair(*places, found.estimate, bootstrap_p, p_value, ours, theirs, p_value)


def mcnemar(only_first: int, only_second: int) -> float:
    """Test whether two models are right on equally many rows, by the rows that only one of them has right.

    Args:
        only_first: rows that the first alone has right. [count]
        only_second: rows that the second alone has right. [count]
    Returns:
        The exact two-sided p-value.
    Example:
        >>> round(mcnemar(8, 1), 4)
        0.0391

    Source: McNemar 1947, Psychometrika 12, 153-157; exact by the binomial distribution.
    """
    from scipy.stats import binomtest

    rows = only_first + only_second
    return float(binomtest(only_first, rows).pvalue) if rows else 1.0


def letters(count: int, apart: Iterable[tuple[int, int]]) -> list[str]:
    """Give models letters so that two models share one exactly if they are not told apart.

    Args:
        count: of the models.
        apart: pairs of places that differ significantly.
    Returns:
        The letters of each model, a, b, c, ...
    Example:
        >>> letters(3, [(0, 2)])
        ['a', 'ab', 'b']

    Source: Piepho 2004, Journal of Computational and Graphical Statistics 13, 456-466: insert and absorb.
    """
    columns = [frozenset(range(count))]
    for pair in apart:
        split = [part for column in columns for part in _without(column, pair)]
        kept = list(dict.fromkeys(split))
        columns = [one for one in kept if not any(one < other for other in kept)]
    columns.sort(key=sorted)
    return ["".join(_letter(at) for at, column in enumerate(columns) if place in column) for place in range(count)]


def _without(column: frozenset[int], pair: tuple[int, int]) -> list[frozenset[int]]:
    return [column - {one} for one in pair] if set(pair) <= column else [column]


def _letter(number: int) -> str:
    return chr(ord("a") + number % 26) + "'" * (number // 26)


@dataclass(frozen=True)
class Seeds:
    """A score over runs that differ in nothing but their seed.

    Args:
        mean: of the scores, with its interval.
        deviation: standard deviation of the scores.
        count: of the runs.
    """

    mean: Estimate
    deviation: float
    count: int


def over_seeds(values: Sequence[float], confidence: float) -> Seeds:
    """Average scores over seeds, with Student's interval of the mean.

    Args:
        values: one per run, two or more.
        confidence: of the interval. [fraction]
    Returns:
        Mean, interval and standard deviation.
    Example:
        >>> found = over_seeds([0.8, 0.9], 0.95)
        >>> round(found.mean.value, 3), round(found.mean.low, 3), round(found.deviation, 3)
        (0.85, 0.215, 0.071)

    Source: Student 1908, Biometrika 6, 1-25.
    """
    from scipy.stats import t

    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(t.ppf((1 + confidence) / 2, len(values) - 1)) * deviation / len(values) ** 0.5
    return Seeds(Estimate(mean, mean - half, mean + half), deviation, len(values))
