"""Temperature and thresholds, against known truths and brute force."""

import numpy as np
import pytest

from tunesmith.core.errors import DataError
from tunesmith.evaluation.calibration import (
    answered,
    reliability,
    temperature_of,
    threshold_for_coverage,
    threshold_for_precision,
    with_temperature,
)
from tunesmith.evaluation.calibration_page import sentences
from tunesmith.evaluation.predictions import Predictions


def overconfident(rows: int, factor: float, seed: int = 0) -> Predictions:
    """True probabilities are softmax(z); the model says softmax(factor z)."""
    draw = np.random.default_rng(seed)
    true = with_temperature(draw.dirichlet(np.full(4, 0.6), rows), 1.0)
    references = np.array([draw.choice(4, p=row) for row in true])
    return Predictions(with_temperature(true, 1 / factor), references)


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_the_temperature_is_found_again(factor: float) -> None:
    found = overconfident(4000, factor)
    temperature = temperature_of(found)
    assert temperature == pytest.approx(factor, rel=0.12)
    after = Predictions(with_temperature(found.probabilities, temperature), found.references)
    assert np.array_equal(after.predicted, found.predicted) and after.row_loss.mean() < found.row_loss.mean()
    gaps = [sum(one.rows * abs(one.accuracy.value - one.confidence) for one in reliability(some, 0.95)) / 4000
            for some in (found, after)]  # fmt: skip
    assert gaps[1] < 0.03 < gaps[0]
    near = [with_temperature(found.probabilities, temperature * by) for by in (0.98, 1.02)]
    assert all(Predictions(one, found.references).row_loss.mean() > after.row_loss.mean() for one in near)


def test_temperature_one_changes_nothing_and_zeros_stay_finite() -> None:
    table = np.array([[1.0, 0.0], [0.25, 0.75]])
    assert with_temperature(table, 1.0) is table
    assert np.isfinite(with_temperature(table, 2.0)).all() and with_temperature(table, 2.0).sum(1) == pytest.approx(1)


def test_thresholds_against_brute_force() -> None:
    found = overconfident(200, 2.0, seed=3)
    for wanted in (0.7, 0.9, 0.97):
        threshold = threshold_for_precision(found, wanted)
        kept = answered(found, threshold, 0.95)
        shares = [found.correct[found.confidence >= one].mean() for one in np.sort(found.confidence)]
        most = next(at for at, share in enumerate(shares) if share >= wanted)  # the lowest threshold that suffices
        assert kept.precision.value >= wanted and kept.coverage.value == pytest.approx((200 - most) / 200)
    for wanted in (0.25, 0.5, 1.0):
        assert answered(found, threshold_for_coverage(found, wanted), 0.95).coverage.value == pytest.approx(wanted)
    assert threshold_for_precision(found, 0.01) == 0.0
    tied = Predictions(np.array([[0.6, 0.4]] * 4), np.array([0, 0, 1, 1]))
    assert answered(tied, threshold_for_coverage(tied, 0.3), 0.95).coverage.value == 1


def test_what_cannot_be_chosen_is_refused() -> None:
    sure = Predictions(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 0]))
    with pytest.raises(DataError, match="all 2 rows .* are told right"):
        temperature_of(sure)
    wrong_first = Predictions(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([1, 1]))
    with pytest.raises(DataError, match=r"no threshold reaches a precision of 0.9 .* highest is 0.500"):
        threshold_for_precision(wrong_first, 0.9)


def test_a_wish_that_takes_no_threshold_is_told_and_how_sure_it_is() -> None:
    share = {"value": 0.925, "low": 0.801, "high": 0.974}
    found = {
        "temperature": 1.2, "threshold": 0.0, "fitted_on": "validation", "fitted_rows": 40,
        "wanted": {"precision": 0.9, "coverage": None}, "splits": {"validation": {"answered": {"precision": share}}},
    }  # fmt: skip
    said = " ".join(sentences(found))
    assert "All rows are answered" in said and "90 % may be missed on new rows" in said and "80.1 %" in said
    none = {**found, "wanted": {"precision": None, "coverage": None}}
    assert "answered" not in " ".join(sentences(none)) and "missed" not in " ".join(sentences(none))
