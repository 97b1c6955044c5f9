"""Intervals and paired comparisons: by the bootstrap, and of shares of rows by formulas that hold near 0 and 1."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Any

import numpy as np

from tunesmith.core.arrays import Array, Marks
from tunesmith.core.registry import find
from tunesmith.evaluation.metrics.base import Metric
from tunesmith.evaluation.predictions import Counted, Predictions
from tunesmith.evaluation.written import Written

Result = Predictions | Written  # what a model did on the rows of a split
Right = Marks | None


@dataclass(frozen=True)
class Estimate:
    """A value with its interval.

    Args:
        value: on the rows as they are.
        low: lower end of the interval.
        high: upper end.
    """

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Mapping[str, float | None]) -> Estimate:
        """Read it from plain values, in which what is no number is None.

        Args:
            values: {"value", "low", "high"}.
        Returns:
            The estimate.
        """
        known = (values[key] for key in ("value", "low", "high"))
        return cls(*(math.nan if one is None else one for one in known))

    def plain(self) -> dict[str, float]:
        """Return {"value", "low", "high"}."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Difference:
    """How much better one set of predictions is than another on the same rows.

    Args:
        metric: its name.
        estimate: of the gain, positive when the first is better, whatever the metric's direction.
        p_value: two-sided, of no difference.
    """

    metric: str
    estimate: Estimate
    p_value: float


@dataclass(frozen=True)
class Bootstrap:
    """How to resample.

    Args:
        resamples: how many. [count]
        confidence: of the interval. [fraction]
        seed: of the draws; the same seed draws the same rows for every model.
    """

    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0

    def weights(self, rows: int) -> Iterator[Array]:
        """Draw resamples: how often each row counts.

        Args:
            rows: how many rows there are.
        Returns:
            (rows,) for each resample.
        """
        draw = np.random.default_rng(self.seed)
        for _ in range(self.resamples):
            yield np.bincount(draw.integers(rows, size=rows), minlength=rows).astype(np.float64)

    def interval(self, values: np.ndarray[Any, Any]) -> tuple[float, float]:
        """Take the percentile interval.

        Args:
            values: one per resample; NaN where undefined.
        Returns:
            (low, high).
        Source: Efron and Tibshirani 1993, chapter 13.
        """
        values = values[~np.isnan(values)]
        if not len(values):
            return float("nan"), float("nan")
        tail = 100 * (1 - self.confidence) / 2
        with np.errstate(invalid="ignore"):  # between infinities there is no number
            low, high = np.percentile(values, [tail, 100 - tail])
        return float(low), float(high)


def own_intervals(found: Result, metrics: Sequence[Metric], bootstrap: Bootstrap) -> dict[str, tuple[float, float]]:
    """Give intervals of scores that have better ones than percentiles of resamples of the rows.

    Args:
        found: what a model did on the rows of a split.
        metrics: of the scores.
        bootstrap: how to resample.
    Returns:
        Metric name to (low, high): Wilson's of shares of rows, percentiles of `smoothed` resamples of metrics of the
        confusion matrix; other metrics are left out.
    """
    rights = {metric.name: metric.right(found) for metric in metrics}
    ends = {
        name: wilson(float(right.mean()), len(right), bootstrap.confidence)
        for name, right in rights.items()
        if right is not None and len(right)
    }
    counted = [metric for metric in metrics if metric.of_confusion and metric.name not in ends]
    if counted and isinstance(found, Predictions):
        table = np.array([[metric.compute(one) for metric in counted] for one in smoothed(found, bootstrap)])
        for column, metric in enumerate(counted):
            value, (low, high) = metric.compute(found.sample()), bootstrap.interval(table[:, column])
            ends[metric.name] = min(low, value), max(high, value)
    return ends


def smoothed(found: Predictions, bootstrap: Bootstrap) -> Iterator[Counted]:
    """Draw resamples after a right and a wrong row were added to the split, as confusion matrices.

    Resamples of the rows alone hardly differ where a model makes few mistakes, and not at all where it makes none. The
    added rows are of every class by its share of the split's; the wrong one is answered with every other class by its
    share of classes and answers. `benchmarks/interval_coverage.py` has what this does to intervals.

    Args:
        found: predictions on a split.
        bootstrap: how to resample.
    Returns:
        As many as the bootstrap's resamples, each of as many rows as the split has.
    """
    draw, size = np.random.default_rng(bootstrap.seed), found.classes**2
    chances = added_rows(found.sample().confusion).ravel()
    filled = np.flatnonzero(chances)
    ends, rows, added = np.cumsum(chances[filled]), found.rows, chances.sum()
    for _ in range(bootstrap.resamples):
        new = draw.binomial(rows, added / (rows + added))
        own = found.cells[draw.integers(rows, size=rows - new)]
        others = filled[np.searchsorted(ends, draw.random(new) * ends[-1], side="right")]
        counts = np.bincount(own, minlength=size) + np.bincount(others, minlength=size)
        yield Counted(counts.astype(np.float64).reshape(found.classes, found.classes))


def added_rows(confusion: Array) -> Array:
    """Spread a right and a wrong row over the cells of a confusion matrix.

    Args:
        confusion: (C, C), rows by true and predicted class.
    Returns:
        (C, C), of sum 2; of sum 1 where there is one class, which nothing can be mistaken for.
    Example:
        >>> added_rows(np.array([[8.0, 0.0], [0.0, 2.0]]))
        array([[0.8, 0.5],
               [0.5, 0.2]])
    """
    true, answers = confusion.sum(1) / confusion.sum(), confusion.sum(0) / confusion.sum()
    wrong = np.outer(true, true + answers + 1e-9)  # a split of one class may be mistaken for any other
    np.fill_diagonal(wrong, 0)
    return np.diag(true) + wrong / max(wrong.sum(), np.finfo(np.float64).tiny)


def wilson(share: float, rows: int, confidence: float) -> tuple[float, float]:
    """Give the interval of a share of rows; it holds near 0 and 1 too, where the bootstrap's is too narrow.

    Args:
        share: of the rows. [fraction]
        rows: how many. [count]
        confidence: of the interval. [fraction]
    Returns:
        (low, high).
    Example:
        >>> [round(end, 3) for end in wilson(1.0, 30, 0.95)]
        [0.886, 1.0]

    Source: Wilson 1927, JASA 22, 209-212.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))  # rounding keeps no share out


def paired_shares(first: Marks, second: Marks, confidence: float) -> tuple[float, float]:
    """Give the interval of the difference of two shares of the same rows; it holds where few rows differ, too.

    Args:
        first: (rows,), the rows that count for one model.
        second: (rows,), those that count for the other.
        confidence: of the interval. [fraction]
    Returns:
        (low, high) of the first share minus the second.
    Example:
        >>> rows = np.arange(100)
        >>> [round(end, 3) for end in paired_shares(rows < 90, rows < 80, 0.95)]
        [0.034, 0.162]

    Source: Bonett and Price 2012, Journal of Educational and Behavioral Statistics 37, 479-488: Wald's interval after
        one row is added to each kind of row on which the two differ.
    """
    found, error = _shares_apart(first, second)
    half = NormalDist().inv_cdf((1 + confidence) / 2) * error
    return found - half, found + half


def paired_shares_p(first: Marks, second: Marks) -> float:
    """Say how probable a difference of two shares of the same rows is where there is none, by `paired_shares`.

    Args:
        first: (rows,), the rows that count for one model.
        second: (rows,), those that count for the other.
    Returns:
        The two-sided p-value, which is below 1 - confidence exactly where the interval leaves zero out.
    Example:
        >>> rows = np.arange(100)
        >>> round(paired_shares_p(rows < 90, rows < 80), 4)
        0.0026
    """
    found, error = _shares_apart(first, second)
    return math.erfc(abs(found) / error / math.sqrt(2))


def _shares_apart(first: Marks, second: Marks) -> tuple[float, float]:
    """Return the difference of two shares, and its standard error, with a row more of each kind that differs."""
    rows = len(first) + 2
    one, two = ((int(kind.sum()) + 1) / rows for kind in (first & ~second, second & ~first))
    return one - two, math.sqrt((one + two - (one - two) ** 2) / rows)


def metrics_by_name(names: Sequence[str]) -> list[Metric]:
    """Build metrics.

    Args:
        names: registered ones.
    Returns:
        In the same order.
    """
    return [find("metrics", name)() for name in names]


def estimate(predictions: Result, metrics: Sequence[Metric], bootstrap: Bootstrap) -> dict[str, Estimate]:
    """Compute metrics with intervals; all metrics see the same resamples.

    Args:
        predictions: on one split.
        metrics: to compute.
        bootstrap: how to resample.
    Returns:
        Metric name to value and interval.
    """
    ends = own_intervals(predictions, metrics, bootstrap)
    others = [metric for metric in metrics if metric.name not in ends]
    if others:
        samples = map(predictions.sample, bootstrap.weights(predictions.rows))
        table = np.array([[metric.compute(sample) for metric in others] for sample in samples])
        ends |= {metric.name: bootstrap.interval(table[:, column]) for column, metric in enumerate(others)}
    whole = predictions.sample()
    return {metric.name: holding(metric.compute(whole), *ends[metric.name]) for metric in metrics}


def holding(value: float, low: float, high: float) -> Estimate:
    """Widen an interval to its value: resamples repeat rows, so some scores are lower, or higher, on all of them.

    Args:
        value: on the rows as they are.
        low: lower end of the interval.
        high: upper end.
    Returns:
        The value within its interval; ends that are no number stay.
    """
    return Estimate(value, min(low, value), max(high, value))


def mean_of(estimates: Sequence[dict[str, Estimate]]) -> dict[str, Estimate]:
    """Average estimates of the same metrics, value and ends.

    Args:
        estimates: one or more.
    Returns:
        Metric name to mean value and mean interval.
    """
    found = {}
    for name in estimates[0]:
        ends = np.mean([[one[name].value, one[name].low, one[name].high] for one in estimates], axis=0)
        found[name] = Estimate(*ends.tolist())
    return found


def paired_difference(first: Result, second: Result, metric: Metric, bootstrap: Bootstrap) -> Difference:
    """Compare two models on the same rows: both are scored on every resample.

    Args:
        first: predictions of one model.
        second: of the other, for the same rows.
        metric: to compare by.
        bootstrap: how to resample.
    Returns:
        The gain of the first over the second with its interval and p-value.
    Raises:
        ValueError: the references differ, so the rows are not the same.
    """
    if not np.array_equal(first.references, second.references):
        raise ValueError("a paired comparison needs the same rows in the same order for both models")
    ours, theirs = (Resampled(one, metric, bootstrap) for one in (first, second))
    return difference(ours, theirs)


@dataclass(frozen=True, eq=False)
class Resampled:
    """What a model scores on every resample; the same bootstrap draws the same rows for every model.

    Args:
        found: what it did on the rows of a split.
        metric: to compute.
        bootstrap: how to resample.
    """

    found: Result
    metric: Metric
    bootstrap: Bootstrap

    @cached_property
    def value(self) -> float:
        """The score on the rows as they are."""
        return self.metric.compute(self.found.sample())

    @cached_property
    def right(self) -> Right:
        """The rows that count, where the score is a share of rows."""
        return self.metric.right(self.found)

    @property
    def table(self) -> Array:
        """(resamples,), where the model stands first in a comparison; NaN where the score is not defined."""
        return self._tables[0]

    @property
    def second(self) -> Array:
        """(resamples,), where it stands second."""
        return self._tables[1]

    @cached_property
    def _tables(self) -> tuple[Array, Array]:
        if self.metric.of_confusion and self.right is None and isinstance(self.found, Predictions):
            both = _in_both_places(self.found, self.metric, self.bootstrap)
            table, second = (np.array(one) for one in zip(*both, strict=True))
            return table, second
        weights = self.bootstrap.weights(self.found.rows)
        table = np.array([self.metric.compute(self.found.sample(own)) for own in weights])
        return table, table


def _in_both_places(found: Predictions, metric: Metric, bootstrap: Bootstrap) -> Iterator[tuple[float, float]]:
    """Score resamples after two rows were added on which a pair of models differs, as the first and as the second.

    As in `paired_shares`, so that models which hardly differ on the rows do not pass for known to be alike. One of the
    rows the first has right and the second wrong, of the other it is the other way round. They are of every class by
    its share, the wrong answer is another class by its share; `benchmarks/interval_coverage.py` has what this does.
    """
    draw, rows, size = np.random.default_rng(bootstrap.seed), found.rows, found.classes
    shares = np.bincount(found.references, minlength=size) / rows
    wrong = np.tile(shares + 1e-9, (size, 1)) * (1 - np.eye(size) if size > 1 else 1)
    ends = np.cumsum(wrong / wrong.sum(1, keepdims=True), 1)
    for _ in range(bootstrap.resamples):
        new = draw.binomial(rows, 2 / (rows + 2))
        counts = np.bincount(found.cells[draw.integers(rows, size=rows - new)], minlength=size * size)
        true = draw.choice(size, new, p=shares)
        other = np.minimum((ends[true] < draw.random((new, 1))).sum(1), size - 1)
        first = draw.random(new) < 0.5
        places = [true * size + np.where(own, true, other) for own in (first, ~first)]
        tables = [counts + np.bincount(place, minlength=size * size) for place in places]
        one, two = (metric.compute(Counted(table.astype(np.float64).reshape(size, size))) for table in tables)
        yield one, two


def difference(first: Resampled, second: Resampled) -> Difference:
    """Compare two models by what they scored on the same resamples.

    Args:
        first: scores of one model.
        second: of the other, for the same rows.
    Returns:
        The gain of the first over the second with its interval and p-value.
    """
    metric, bootstrap = first.metric, first.bootstrap
    if first.right is not None and second.right is not None and len(first.right):
        low, high = paired_shares(first.right, second.right, bootstrap.confidence)
        p_value = paired_shares_p(first.right, second.right)
    else:
        gains = resampled_gains(first, second)
        (low, high), p_value = bootstrap.interval(gains), two_sided(gains)
    value = metric_sign(metric) * (first.value - second.value)
    return Difference(metric.name, holding(value, low, high), p_value)


def resampled_gains(first: Resampled, second: Resampled) -> Array:
    """Subtract what two models scored on the same resamples.

    Args:
        first: scores of one model.
        second: of the other, for the same rows.
    Returns:
        The gain of the first over the second on each resample, positive when better; NaN where undefined.
    """
    with np.errstate(invalid="ignore"):  # between infinities there is no number
        gains: Array = metric_sign(first.metric) * (first.table - second.second)
    return gains


def metric_sign(metric: Metric) -> int:
    """Return what turns a metric into one where more is better.

    Args:
        metric: any.
    Returns:
        1 or -1.
    """
    return 1 if metric.higher_is_better else -1


def two_sided(gains: Array) -> float:
    """Say how probable differences like these are where there is none: twice the share on the smaller side of zero.

    Args:
        gains: one per resample; NaN where undefined.
    Returns:
        The p-value, never below 2 / (resamples + 1).
    """
    known = gains[~np.isnan(gains)]
    tail = min((known <= 0).mean(), (known >= 0).mean()) if len(known) else 1.0
    return min(1.0, 2 * max(float(tail), 1 / (len(gains) + 1)))


def cheapest_near_best(scores: Sequence[Estimate], costs: Sequence[Any], confidence: float) -> int:
    """Take the cheapest of those within one standard error of the best: the one-standard-error rule.

    Args:
        scores: the best first.
        costs: of each, whatever can be ordered.
        confidence: of the intervals. [fraction]
    Returns:
        Its place; the best one's where that has no interval, and the better one's where costs are equal.
    Example:
        >>> scores = [Estimate(0.90, 0.86, 0.94), Estimate(0.89, 0.85, 0.93), Estimate(0.80, 0.76, 0.84)]
        >>> cheapest_near_best(scores, [300, 200, 100], confidence=0.95)
        1

    Source: Breiman et al. 1984, Classification and regression trees, section 3.4.3. Differs: the error is half the
        interval over z.
    """
    best = scores[0]
    error = (best.high - best.low) / 2 / NormalDist().inv_cdf((1 + confidence) / 2)
    near = [at for at, one in enumerate(scores) if at == 0 or abs(one.value - best.value) <= error]
    return min(near, key=lambda at: (costs[at], at))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct the p-values of several tests together, so that one of them is wrong as seldom as a single test.

    Args:
        p_values: of the tests.
    Returns:
        Corrected ones, in the same order; none above 1.
    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]

    Source: Holm 1979, Scandinavian Journal of Statistics 6, 65-70.
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    found, highest = [0.0] * len(p_values), 0.0
    for done, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - done) * p_values[place]))
        found[place] = highest
    return found
