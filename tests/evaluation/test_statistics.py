import math

import numpy as np
import pytest

from tunesmith.evaluation.predictions import Predictions
from tunesmith.evaluation.statistics import Bootstrap, estimate, metrics_by_name, paired_difference


def of_accuracy(right: np.ndarray) -> Predictions:
    probabilities = np.where(right[:, None], [0.8, 0.2], [0.2, 0.8])
    return Predictions(probabilities, np.zeros(len(right), dtype=np.int64))


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """300 simulated test sets of 150 rows, true accuracy 0.8: coverage within three standard errors of 95 %.

    Accuracy has Wilson's interval, log-loss the bootstrap's.
    """
    draw, trials = np.random.default_rng(0), 300
    truth = {"accuracy": 0.8, "log-loss": -0.8 * np.log(0.8) - 0.2 * np.log(0.2)}
    metrics, covered = metrics_by_name([*truth]), dict.fromkeys(truth, 0)
    for trial in range(trials):
        found = estimate(of_accuracy(draw.random(150) < 0.8), metrics, Bootstrap(200, 0.95, trial))
        for name, value in truth.items():
            covered[name] += found[name].low <= value <= found[name].high
    assert all(0.95 - 3 * 0.0126 - 0.01 < count / trials < 0.95 + 3 * 0.0126 for count in covered.values()), covered


def test_paired_difference() -> None:
    draw = np.random.default_rng(0)
    base = draw.random(400) < 0.7
    better = base | (draw.random(400) < 0.3)
    (metric,) = metrics_by_name(["accuracy"])
    gain = paired_difference(of_accuracy(better), of_accuracy(base), metric, Bootstrap())
    assert gain.estimate.low > 0 and gain.p_value < 0.01
    assert gain.estimate.value == pytest.approx(better.mean() - base.mean())
    same = paired_difference(of_accuracy(base), of_accuracy(base), metric, Bootstrap())
    assert same.estimate.value == 0 and same.p_value == 1
    assert same.estimate.low == -same.estimate.high and 0 < same.estimate.high < 0.01  # none seen is not none


def test_a_p_value_of_shares_says_what_their_interval_says_and_is_no_smaller_than_it_should_be() -> None:
    """Rows on which only one of two equally good models is right, 6 of 100 on average, as tests of a round see them."""
    (metric,), whole, below = metrics_by_name(["accuracy"]), np.ones(100, dtype=bool), 0.0
    chances = {
        (ours, theirs): math.exp(-6) * 3 ** (ours + theirs) / math.factorial(ours) / math.factorial(theirs)
        for ours in range(13)
        for theirs in range(13)
    }
    for (ours, theirs), chance in chances.items():
        first, second = whole.copy(), whole.copy()
        first[:theirs], second[12 : 12 + ours] = False, False
        found = paired_difference(of_accuracy(first), of_accuracy(second), metric, Bootstrap(1))
        assert (found.p_value < 0.05) == (found.estimate.low > 0 or found.estimate.high < 0)
        below += chance * (found.p_value <= 0.005)
    assert 0 < below < 0.005


def test_rows_must_be_the_same() -> None:
    one = of_accuracy(np.array([True, False]))
    other = Predictions(one.probabilities, np.array([0, 1]))
    with pytest.raises(ValueError, match="same rows"):
        paired_difference(one, other, metrics_by_name(["accuracy"])[0], Bootstrap())


def test_no_error_is_no_certainty() -> None:
    found = estimate(of_accuracy(np.ones(30, dtype=bool)), metrics_by_name(["accuracy"]), Bootstrap(100))["accuracy"]
    assert found.value == found.high == 1.0 and found.low == pytest.approx(0.8865, abs=1e-4)


def test_macro_f1_without_an_error_is_no_certainty() -> None:
    """120 simulated test sets of 30 rows, true accuracy 0.95: resamples of the rows alone cover 80 %."""
    draw, trials, covered, alone = np.random.default_rng(0), 120, 0, 0
    (metric,) = metrics_by_name(["macro-f1"])
    for trial in range(trials):
        codes = draw.integers(5, size=30)
        answers = np.where(draw.random(30) < 0.95, codes, (codes + draw.integers(1, 5, 30)) % 5)
        found, bootstrap = Predictions(np.eye(5)[answers], codes), Bootstrap(100, 0.95, trial)
        one = estimate(found, [metric], bootstrap)["macro-f1"]
        assert one.low <= one.value <= one.high
        low, high = bootstrap.interval(
            np.array([metric.compute(found.sample(weights)) for weights in bootstrap.weights(30)])
        )
        covered += one.low <= 0.95 <= one.high
        alone += low <= 0.95 <= high
    assert alone / trials < 0.85 < 0.93 < covered / trials


def test_macro_f1_of_two_models_that_hardly_differ_is_not_known_to_be_alike() -> None:
    """60 simulated test sets of 30 rows, true accuracies 0.95 and 0.93: resamples of the rows alone cover 69 %."""
    draw, covered, alone = np.random.default_rng(0), 0, 0
    (metric,) = metrics_by_name(["macro-f1"])
    for trial in range(60):
        codes, wrong = draw.integers(5, size=30), draw.integers(1, 5, 30)
        kind = draw.choice(3, 30, p=[0.91 + 0.03, 0.04, 0.02])  # alike; the first alone right; the second alone
        both = np.where((kind == 0) & (draw.random(30) < 0.03 / 0.94), wrong, 0)
        one, two = (
            Predictions(np.eye(5)[(codes + np.where(kind == place, wrong, both)) % 5], codes) for place in (2, 1)
        )
        bootstrap = Bootstrap(60, 0.95, trial)
        found = paired_difference(one, two, metric, bootstrap).estimate
        assert found.low <= found.value <= found.high and found.low < found.high
        both_drawn = [
            metric.compute(one.sample(weights)) - metric.compute(two.sample(weights))
            for weights in bootstrap.weights(30)
        ]
        low, high = bootstrap.interval(np.array(both_drawn))
        covered += found.low <= 0.02 <= found.high
        alone += low <= 0.02 <= high
    assert alone / 60 < 0.8 < 0.93 < covered / 60


def test_differences_of_macro_f1_turn_with_the_models() -> None:
    draw = np.random.default_rng(2)
    codes = draw.integers(4, size=200)
    one, two = (Predictions(np.eye(4)[np.where(draw.random(200) < share, codes, 0)], codes) for share in (0.9, 0.6))
    (metric,) = metrics_by_name(["macro-f1"])
    there, back = (paired_difference(*pair, metric, Bootstrap(500)) for pair in ((one, two), (two, one)))
    assert there.estimate.value == -back.estimate.value > 0.1 and there.p_value < 0.01
    assert there.estimate.low == pytest.approx(-back.estimate.high, abs=0.01)
    assert there.estimate.high - there.estimate.low < 0.25


def test_the_same_seed_draws_the_same_rows() -> None:
    found = of_accuracy(np.random.default_rng(1).random(50) < 0.5)
    metrics = metrics_by_name(["accuracy", "macro-f1"])
    assert estimate(found, metrics, Bootstrap(200, 0.9, 3)) == estimate(found, metrics, Bootstrap(200, 0.9, 3))
