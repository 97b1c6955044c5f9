"""What every metric must keep."""

from __future__ import annotations

import numpy as np

from tunesmith.evaluation.metrics.base import Metric
from tunesmith.evaluation.predictions import Predictions


def check_metric(kind: type[Metric]) -> None:
    """Check a metric on random predictions of three classes.

    Args:
        kind: the metric's class.
    Raises:
        AssertionError: a promise is broken; the message says which.
    """
    draw = np.random.default_rng(0)
    references = draw.integers(0, 3, size=60)
    guesses = draw.dirichlet(np.ones(3), size=60)
    right = 0.9 * np.eye(3)[references] + 0.1 / 3
    metric, random, good = kind(), Predictions(guesses, references), Predictions(right, references)
    low, high = metric.range
    for predictions in (random, good):
        value = metric.compute(predictions.sample())
        assert low <= value <= high, f"{metric.name} = {value} lies outside its range {metric.range}"
    better, worse = metric.compute(good.sample()), metric.compute(random.sample())
    assert (better > worse) == metric.higher_is_better, "right predictions must score better than random ones"
    doubled = Predictions(np.repeat(guesses, 2, axis=0), np.repeat(references, 2))
    weighted = metric.compute(random.sample(np.full(60, 2.0)))
    assert np.isclose(metric.compute(doubled.sample()), weighted), "a weight of two must equal the row twice"
    order = draw.permutation(60)
    shuffled = Predictions(guesses[order], references[order])
    assert np.isclose(metric.compute(shuffled.sample()), worse), "the order of rows must not matter"
