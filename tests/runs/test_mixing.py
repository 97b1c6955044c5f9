"""A weighted mix of runs: the likeliest weights, the same answers after loading, clear refusals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import tunesmith
from tests.conftest import write_csv
from tunesmith.core.errors import CheckpointError, DataError


@pytest.fixture
def runs(recipe: dict[str, Any], tmp_path: Path) -> list[tunesmith.Run]:
    few = {**recipe["training"], "epochs": 1, "learning_rate": 2e-3}
    methods = [{"name": "full"}, {"name": "prefix", "length": 4}]
    return [
        tunesmith.train({**recipe, "method": method, "training": few, "output": str(tmp_path / method["name"])})
        for method in methods
    ]


def test_the_weights_are_the_likeliest(runs: list[tunesmith.Run], data_folder: Path, tmp_path: Path) -> None:
    data = str(data_folder / "test.csv")
    mixed, facts = tunesmith.mix(runs, data, tmp_path / "mix")
    found = [run.scored(data) for run in runs]
    of = [one.probabilities[np.arange(one.rows), one.references] for one in found]
    best = minimize_scalar(lambda w: -np.log(w * of[0] + (1 - w) * of[1]).mean(), bounds=(0, 1), method="bounded")
    ours = -np.log(facts["weights"][0] * of[0] + facts["weights"][1] * of[1]).mean()
    assert ours <= best.fun + 1e-6
    assert sum(facts["weights"]) == pytest.approx(1.0)
    expected = facts["weights"][0] * found[0].probabilities + facts["weights"][1] * found[1].probabilities
    text = ["well hello there friend"]
    loaded = tunesmith.Mix.load(tmp_path / "mix")
    assert np.allclose(loaded.predict_proba(text), mixed.predict_proba(text), atol=1e-7)
    accuracy = (expected.argmax(1) == found[0].references).mean()
    assert loaded.evaluate(data)["accuracy"].value == pytest.approx(accuracy)
    assert loaded.predict(text)[0].label in runs[0].labels


def test_what_cannot_be_mixed(runs: list[tunesmith.Run], recipe: dict[str, Any], tmp_path: Path) -> None:
    data = recipe["data"]["test"]
    with pytest.raises(DataError, match="two or more runs of the same labels"):
        tunesmith.mix(runs[:1], data)
    write_csv(tmp_path / "two.csv", [(f"a {i}", "x") for i in range(9)] + [(f"b {i}", "y") for i in range(9)])
    other = tunesmith.train(
        {**recipe, "data": {"train": str(tmp_path / "two.csv"), "validation": 0.3}, "output": str(tmp_path / "other")}
    )
    with pytest.raises(DataError, match="runs of the same labels, in the same order; .*other and .* differ: "):
        tunesmith.mix([runs[0], other], data)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "mix.json").write_text(json.dumps({"runs": []}))
    with pytest.raises(CheckpointError, match="'runs' or 'weights' is missing"):
        tunesmith.Mix.load(tmp_path / "broken")
