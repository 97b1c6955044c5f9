"""A search whose trials are scored by the mean over folds, which train in one pass."""

import json
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tests.conftest import TEXTS, write_csv
from tunesmith.core.files import read_json

pytest.importorskip("optuna", reason="the extra 'search' is not installed")


@pytest.fixture(scope="module")
def base(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("folds")
    train = [(f"{text} {extra}", label) for label, texts in TEXTS.items() for text in texts for extra in "abc"]
    write_csv(folder / "train.csv", train)
    return {
        "model": str(tiny_folder),
        "data": {"train": str(folder / "train.csv"), "folds": 3},
        "method": "lora",
        "training": {"epochs": 2, "batch_size": 8, "learning_rate": [1e-3, 1e-2]},
        "evaluation": {"resamples": 100, "baselines": False},
    }


def trials(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_json(folder / "trials.json", list)
    return found


def test_a_trial_is_the_mean_of_the_runs_on_its_folds(base: dict[str, Any], tmp_path: Path) -> None:
    found = tunesmith.search_settings(base, [f"output={tmp_path / 's'}"], trials=2, strategy="grid")
    first = trials(tmp_path / "s")[0]
    values, losses, reports = [], [], []
    for fold in range(3):
        run = tunesmith.train(base, [*first["overrides"], f"data.fold={fold}", f"output={tmp_path / str(fold)}"])
        rows = [json.loads(line) for line in (run.folder / "history.jsonl").read_text().splitlines()]
        best = max(rows, key=lambda row: (row["accuracy"], -row["validation loss"]))
        values.append(best["accuracy"])
        losses.append(best["validation loss"])
        reports.append([row["accuracy"] for row in rows])
    outcome = first["outcome"]
    assert outcome["value"] == pytest.approx(sum(values) / 3)
    assert outcome["loss"] == pytest.approx(sum(losses) / 3, rel=1e-4)
    assert [score for _, _, score in first["reports"]] == pytest.approx(
        [sum(scores) / 3 for scores in zip(*reports, strict=True)]
    )
    interval = outcome["scores"]["accuracy"]
    assert interval["low"] < outcome["value"] < interval["high"]
    assert found["chosen_by"]["value"] == max(one["outcome"]["value"] for one in trials(tmp_path / "s"))


def test_a_fold_that_is_named_scores_alone(base: dict[str, Any], tmp_path: Path) -> None:
    found = tunesmith.search_settings(base, ["data.fold=1", f"output={tmp_path / 's'}"], trials=2, strategy="grid")
    assert found["again_on_validation"]["value"] == found["chosen_by"]["value"]


def test_a_trial_that_is_worse_over_all_folds_is_stopped(base: dict[str, Any], tmp_path: Path) -> None:
    words = ["training.epochs=8", "training.learning_rate=[0.02, 1.0e-8, 2.0e-8]", f"output={tmp_path / 's'}"]
    how: dict[str, Any] = {"strategy": "asha", "strategy_settings": {"factor": 2, "least": 4}}
    tunesmith.search_settings(base, words, trials=3, metric="validation loss", **how)
    stopped = [one["outcome"] for one in trials(tmp_path / "s") if one["outcome"]["state"] == "stopped"]
    assert stopped and all(4 <= one["epochs"] < 8 and one["value"] is not None for one in stopped)
