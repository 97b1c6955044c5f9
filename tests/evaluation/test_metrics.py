"""Our metrics against scikit-learn's, on rows with weights and with ties."""

import numpy as np
import pytest
from sklearn import metrics as oracle

from tunesmith.core.registry import find
from tunesmith.evaluation.predictions import Predictions


def draws(seed: int, classes: int = 4, rows: int = 80) -> tuple[Predictions, np.ndarray]:
    draw = np.random.default_rng(seed)
    probabilities = draw.dirichlet(np.ones(classes), size=rows).round(1) + 1e-3  # rounding makes ties
    probabilities /= probabilities.sum(1, keepdims=True)
    return Predictions(probabilities, draw.integers(0, classes, rows)), draw.integers(0, 4, rows).astype(float)


def theirs(name: str, found: Predictions, weights: np.ndarray) -> float:
    true, predicted, scores = found.references, found.predicted, found.probabilities
    kept = weights > 0
    macro = {"average": "macro", "zero_division": 0.0}
    true, predicted, scores, weights = true[kept], predicted[kept], scores[kept], weights[kept]
    calls = {
        "accuracy": lambda: oracle.accuracy_score(true, predicted, sample_weight=weights),
        "macro-f1": lambda: oracle.f1_score(true, predicted, sample_weight=weights, **macro),
        "micro-f1": lambda: oracle.f1_score(true, predicted, sample_weight=weights, average="micro"),
        "precision": lambda: oracle.precision_score(true, predicted, sample_weight=weights, **macro),
        "recall": lambda: oracle.recall_score(true, predicted, sample_weight=weights, **macro),
        "log-loss": lambda: oracle.log_loss(true, scores, sample_weight=weights, labels=range(scores.shape[1])),
        "roc-auc": lambda: oracle.roc_auc_score(true, scores, sample_weight=weights, multi_class="ovr"),
    }
    return float(calls[name]())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["accuracy", "macro-f1", "micro-f1", "precision", "recall", "log-loss", "roc-auc"])
def test_equal_to_scikit_learn(name: str, seed: int) -> None:
    found, weights = draws(seed)
    metric = find("metrics", name)()
    assert metric.compute(found.sample(weights)) == pytest.approx(theirs(name, found, weights), abs=1e-12)


def test_a_class_without_rows_is_left_out() -> None:
    """Five classes exist, two occur: F1 as scikit-learn's over the labels seen."""
    probabilities = np.eye(5)[[0, 0, 1, 1]] * 0.9 + 0.02
    found = Predictions(probabilities, np.array([0, 1, 1, 1]))
    expected = oracle.f1_score(found.references, found.predicted, average="macro")
    assert find("metrics", "macro-f1")().compute(found.sample()) == pytest.approx(expected)


def test_calibration_error_by_hand() -> None:
    """Ten rows at confidence 0.9, eight right: the gap is 0.1."""
    probabilities = np.tile([0.9, 0.1], (10, 1))
    found = Predictions(probabilities, np.array([0] * 8 + [1] * 2))
    assert find("metrics", "calibration-error")().compute(found.sample()) == pytest.approx(0.1)
