"""What the tuned model is compared with."""

import numpy as np
import pytest

from tunesmith.core.registry import find
from tunesmith.evaluation.predictions import Predictions
from tunesmith.evaluation.statistics import Bootstrap, Estimate
from tunesmith.runs.comparing import Cost, Judge, Scored


@pytest.mark.parametrize("place", [0, 1])
def test_a_baseline_without_a_score_is_not_the_best_one(place: int) -> None:
    labels = np.arange(8) % 2
    good, half = np.eye(2)[labels], np.eye(2)[np.zeros(8, int)]

    def scored(name: str, chances: np.ndarray, value: float) -> Scored:
        scores = {"test": {"accuracy": Estimate(value, value, value)}}
        return Scored(name, {"test": Predictions(chances, labels)}, 0.0, Cost(), scores)

    others = [scored("second", half, 0.5)]
    others.insert(place, scored("none", good, float("nan")))
    judge = Judge([find("metrics", "accuracy")()], Bootstrap(100), ["test"])
    (gain,) = judge.gain(scored("ours", good, 1.0), others, "test")
    assert gain.estimate.value == 0.5
