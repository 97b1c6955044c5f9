"""What every metric must keep."""

from __future__ import annotations

from typing import Any

import numpy as np

from tunesmith.evaluation.metrics.base import Metric
from tunesmith.evaluation.predictions import Counted, Predictions
from tunesmith.evaluation.written import Written

_WORDS = ("stone", "river", "lamp", "seven", "green", "walks")


def check_metric(kind: type[Metric]) -> None:
    """Check a metric on random predictions of three classes.

    Args:
        kind: the metric's class.
    Raises:
        AssertionError: a promise is broken; the message says which.
    """
    if kind.reads != "labels":
        _check_text_metric(kind)
        return
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
    if kind.of_confusion:
        assert np.isclose(metric.compute(Counted(random.sample().confusion)), worse), (
            "of_confusion: nothing else counts"
        )


def _check_text_metric(kind: type[Metric]) -> None:
    draw = np.random.default_rng(0)
    right = [
        [f"{draw.choice(_WORDS)} {draw.choice(_WORDS)} {draw.choice(_WORDS)} {number} end"] for number in range(30)
    ]
    tokens = draw.integers(5, 9, size=30)

    def written(answers: list[str], nats: float, rows: np.ndarray[Any, Any]) -> Written:
        sums = nats * tokens[rows]
        return Written(sums, tokens[rows], 4 * tokens[rows], np.arange(len(rows)), [answers[row] for row in rows],
                       [right[row] for row in rows])  # fmt: skip

    every, metric = np.arange(30), kind()
    shuffled = [right[row][0] if draw.random() < 0.3 else "the the" for row in draw.permutation(30)]
    good, random = written([texts[0] for texts in right], 0.1, every), written(shuffled, 3.0, every)
    low, high = metric.range
    for found in (good, random):
        value = metric.compute(found.sample())
        assert low <= value <= high, f"{metric.name} = {value} lies outside its range {metric.range}"
    better, worse = metric.compute(good.sample()), metric.compute(random.sample())
    assert (better > worse) == metric.higher_is_better, "right answers must score better than wrong ones"
    doubled = written(shuffled, 3.0, np.repeat(every, 2))
    weighted = metric.compute(random.sample(np.full(30, 2.0)))
    assert np.isclose(metric.compute(doubled.sample()), weighted), "a weight of two must equal the row twice"
    other = written(shuffled, 3.0, draw.permutation(30))
    assert np.isclose(metric.compute(other.sample()), worse), "the order of rows must not matter"
