"""Candidates that answer together: all are kept, their probabilities are averaged, and a run's verbs know it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tunesmith
from tunesmith.core.errors import CompatibilityError, RecipeError

SEEDS = [{"seed": 1}, {"seed": 2, "method": {"name": "lora", "rank": 3}}, {"seed": 3, "method": {"name": "bitfit"}}]


@pytest.fixture
def ensemble(recipe: dict[str, Any]) -> tunesmith.Run:
    return tunesmith.train({**recipe, "candidates": SEEDS, "combine": "average"})


def test_members_answer_as_their_own_runs_averaged(
    ensemble: tunesmith.Run, recipe: dict[str, Any], tmp_path: Path
) -> None:
    texts = ["where is my parcel", "i want my money back", "hello there"]
    alone = []
    for number, one in enumerate(SEEDS):
        data = {**recipe["data"], "seed": recipe.get("seed", 0)}
        run = tunesmith.train({**recipe, **one, "data": data, "output": str(tmp_path / f"alone-{number}")})
        alone.append(run.predict_proba(texts))
    again = tunesmith.Run.load(ensemble.folder)
    assert np.abs(again.predict_proba(texts) - np.mean(alone, 0)).max() < 1e-6
    assert np.abs(alone[0] - alone[2]).max() > 1e-4  # members do differ
    assert [one["chosen"] for one in again.summary["candidates"]] == [True, True, True]
    assert {path.name for path in (ensemble.folder / "members").iterdir()} == {"001", "002"}


def test_scores_of_the_run_are_the_ensembles(ensemble: tunesmith.Run, data_folder: Path) -> None:
    scores = ensemble.evaluate(data_folder / "test.csv")
    assert scores["accuracy"].value == pytest.approx(ensemble.metrics["test"]["accuracy"]["value"], abs=1e-12)


def test_one_delta_cannot_stand_for_it(ensemble: tunesmith.Run, recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(CompatibilityError, match="ensemble of 3 deltas"):
        tunesmith.merge(ensemble, tmp_path / "merged")
    with pytest.raises(CompatibilityError, match="ensemble of 3 deltas"):
        tunesmith.convert(ensemble.folder, "peft", tmp_path / "converted")
    with pytest.raises(CompatibilityError, match="ensemble of 3 deltas"):
        tunesmith.train({**recipe, "start_from": str(ensemble.folder), "output": str(tmp_path / "next")})


def test_an_average_of_one_is_refused(recipe: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="at least two candidates"):
        tunesmith.train({**recipe, "combine": "average"})
