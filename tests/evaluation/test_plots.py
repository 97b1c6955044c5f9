"""The pictures of reports are drawn whatever names and numbers they are given."""

import numpy as np
import pytest

from tunesmith.evaluation import plots

pytestmark = pytest.mark.usefixtures("pictures")

ODD = ["$x_", "<b>&", "名前 🙂", "a" * 60, "", r"\frac{$1}$", "from $5 to $6"]
NAN, INF = float("nan"), float("inf")


def test_odd_names() -> None:
    matrix = np.arange(len(ODD) ** 2).reshape(len(ODD), -1)
    bars = [(name, 0.5, 0.4, 0.6) for name in ODD]
    for svg in (
        plots.confusion(matrix, ODD),
        plots.scores_with_intervals(bars, "accuracy"),
        plots.shares(dict.fromkeys(ODD, 2)),
    ):
        assert svg.startswith("<svg") and "<b>&" not in svg and "&lt;b&gt;&amp;" in svg and "from $5 to $6" in svg


def test_odd_settings_and_scores_of_trials() -> None:
    heads = [(name, [(0.0, name), (1.0, "x")]) for name in ODD]
    for scores in ([0.5, 0.6], [1.0, INF], [NAN, 0.5], [NAN, NAN]):
        lines = [([0.5] * len(ODD), score) for score in scores]
        svg = plots.parallel_coordinates(heads, lines, "accuracy", True)
        assert svg.startswith("<svg") and "from $5 to $6" in svg


def test_odd_numbers() -> None:
    history = [{"epoch": 1, "validation loss": NAN, "accuracy": 0.5}, {"epoch": 2, "validation loss": 2.0}]
    for losses in ([], [1.0], [NAN, INF, 1.0], [0.5] * 200):
        assert plots.learning_curves(losses, history, "accuracy", 2).startswith("<svg")
    assert plots.scores_with_intervals([("a", NAN, NAN, NAN), ("b", 1.0, 1.0, 1.0)], "accuracy").startswith("<svg")
    assert plots.candidate_curves([history, []], "accuracy").startswith("<svg")
    assert plots.confusion(np.zeros((1, 1)), ["a"]).startswith("<svg")
