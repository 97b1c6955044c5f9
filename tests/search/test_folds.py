"""A search whose trials are scored by the mean over folds, which train in one pass."""

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tunesmith
from tests.conftest import TEXTS, write_csv
from tunesmith.core.errors import TunesmithError
from tunesmith.core.files import read_json
from tunesmith.core.progress import Silence
from tunesmith.recipe.loading import load_recipe
from tunesmith.runs.labelling import Labelling
from tunesmith.search.passes import Passes
from tunesmith.training.trial import Trial

pytest.importorskip("optuna", reason="the extra 'search' is not installed")


@pytest.fixture(scope="module")
def base(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("folds")
    train = [(f"{text} {extra}", label) for label, texts in TEXTS.items() for text in texts for extra in "abc"]
    write_csv(folder / "train.csv", train)
    return {
        "model": str(tiny_folder),
        "data": {"train": str(folder / "train.csv"), "folds": 2},
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
    for fold in range(2):
        run = tunesmith.train(base, [*first["overrides"], f"data.fold={fold}", f"output={tmp_path / str(fold)}"])
        rows = [json.loads(line) for line in (run.folder / "history.jsonl").read_text().splitlines()]
        best = max(rows, key=lambda row: (row["accuracy"], -row["validation loss"]))
        values.append(best["accuracy"])
        losses.append(best["validation loss"])
        reports.append([row["accuracy"] for row in rows])
    outcome = first["outcome"]
    assert outcome["value"] == pytest.approx(sum(values) / 2)
    assert outcome["loss"] == pytest.approx(sum(losses) / 2, rel=1e-4)
    assert [score for _, _, score in first["reports"]] == pytest.approx(
        [sum(scores) / 2 for scores in zip(*reports, strict=True)]
    )
    interval = outcome["scores"]["accuracy"]
    assert interval["low"] < outcome["value"] < interval["high"]
    assert found["chosen_by"]["value"] == max(one["outcome"]["value"] for one in trials(tmp_path / "s"))
    assert [[score for _, score in one] for one in outcome["folds"]] == pytest.approx(np.array(reports))
    choices, tried = found["nested"]["choices"], trials(tmp_path / "s")
    for choice in choices:
        other = dict(map(tuple, tried[choice["trial"]]["outcome"]["folds"][1 - choice["fold"]]))
        scores = [score for one in tried for _, score in one["outcome"]["folds"][1 - choice["fold"]]]
        assert other[choice["epoch"]] == max(scores)
    assert found["nested"]["value"] == pytest.approx(sum(one["score"] for one in choices) / 2)
    assert found["nested"]["sentence"] in (tmp_path / "s" / "study.md").read_text()
    cheaper = {"choose": "one-standard-error", "resume": True}
    again = tunesmith.search_settings(base, [f"output={tmp_path / 's'}"], trials=2, strategy="grid", **cheaper)
    assert again["best"] == found["best"] and again["nested"] is None  # it is of another choice


def test_a_score_of_folds_is_one_number_wherever_it_is_shown(base: dict[str, Any], tmp_path: Path) -> None:
    words = ["training.epochs=1", f"output={tmp_path / 's'}"]
    found = tunesmith.search_settings(base, words, trials=2, strategy="grid", metric="macro-f1")
    for one in trials(tmp_path / "s"):
        score = one["outcome"]["scores"]["macro-f1"]
        assert score["low"] <= score["value"] == one["outcome"]["value"] <= score["high"]
    assert f"macro-f1 {100 * found['chosen_by']['value']:.1f} %" in found["choice"]["sentence"]


def test_folds_with_fewer_rows_than_labels_are_refused(base: dict[str, Any], tmp_path: Path) -> None:
    with open(base["data"]["train"], encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    classes = len({row["label"] for row in rows})
    folds = len(rows) // classes + 1
    words = [f"data.folds={folds}", f"output={tmp_path / 's'}"]
    most = rf"and there are {classes} labels: .*Lower data.folds \({folds - 1} at most\)"
    with pytest.raises(TunesmithError, match=rf"data.folds: fold \d+ of {folds} has \d+ rows, {most}"):
        tunesmith.search_settings(base, words, trials=1, strategy="grid")


def test_a_fold_that_is_named_scores_alone(base: dict[str, Any], tmp_path: Path) -> None:
    found = tunesmith.search_settings(base, ["data.fold=1", f"output={tmp_path / 's'}"], trials=2, strategy="grid")
    assert found["again_on_validation"]["value"] == found["chosen_by"]["value"] and found["nested"] is None


def test_a_strategy_hears_means_and_ends_a_trial_on_all_folds(base: dict[str, Any]) -> None:
    words = ["training.epochs=3", "training.learning_rate=0.01"]
    recipes = {number: load_recipe(base, [*words, f"seed={number}", "data.seed=0"]) for number in range(2)}
    heard = []

    def listen(number: int, epoch: int, score: float) -> bool:
        heard.append((number, epoch))
        return number == 1

    found = Passes("accuracy", Silence(), every_fold=True).carry_out(recipes, listen)
    assert sorted(heard) == [(0, 1), (0, 2), (0, 3), (1, 1)]
    assert [found[number].state for number in range(2)] == ["complete", "stopped"]
    assert found[0].epochs == 3 > found[1].epochs


def test_a_score_that_is_no_number_is_not_heard_and_decides_nothing(
    base: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(base, ["training.epochs=2", "training.learning_rate=0.01", "data.seed=0"])
    whole, calls, heard = Labelling.validate, list[int](), list[int]()

    def undefined(self: Labelling, tuned: Any) -> dict[str, float]:
        calls.append(1)
        found = whole(self, tuned)
        return {**found, "accuracy": math.nan} if len(calls) in without else found

    def listen(number: int, epoch: int, score: float) -> bool:
        heard.append(epoch)
        return False

    monkeypatch.setattr(Labelling, "validate", undefined)
    without: Sequence[int] = (1, 2)  # the first epoch of both folds
    found = Passes("accuracy", Silence(), every_fold=True).carry_out({0: recipe}, listen)[0]
    assert (
        found.state == "complete" and heard == [2] and [[epoch for epoch, _ in one] for one in found.folds] == [[2]] * 2
    )
    calls.clear()
    without = (2, 4)  # both epochs of the second fold
    found = Passes("accuracy", Silence(), every_fold=True).carry_out({0: recipe}, listen)[0]
    assert found.state == "failed" and found.value is None
    assert found.reason.startswith("accuracy has no value on the validation rows of fold 1")


def test_what_decides_is_the_score_of_the_state_that_is_kept(base: dict[str, Any]) -> None:
    words = ["data.folds=null", "data.validation=0.5", "training.epochs=12", "training.learning_rate=0.01"]
    words += ["training.keep_best=2", "training.average_best=true", "training.best=log-loss"]
    averaged = list[list[int]]()

    def keep(number: int, family: Any, trial: Trial, result: Any) -> None:
        averaged.append(trial.trained.averaged)

    recipe = load_recipe(base, [*words, "evaluation.metrics=[log-loss, accuracy]"])
    found = Passes("log-loss", Silence(), keep=keep).carry_out({0: recipe}, lambda *_: False)[0]
    assert len(averaged[0]) == 2, "the mean of two epochs is to be the better one here"
    assert found.value == pytest.approx(found.scores["log-loss"]["value"], rel=1e-5)


def test_folds_that_are_drawn_twice_are_as_many_rows_as_once(base: dict[str, Any], tmp_path: Path) -> None:
    twice = {**base, "data": {**base["data"], "fold_repeats": 2}}
    tunesmith.search_settings(twice, [f"output={tmp_path / 's'}"], trials=1, strategy="grid")
    (first,) = trials(tmp_path / "s")
    runs = [
        tunesmith.train(twice, [*first["overrides"], f"data.fold={fold}", f"output={tmp_path / str(fold)}"])
        for fold in range(4)
    ]
    rows = [read_json(run.folder / "splits.json", dict) for run in runs]
    assert rows[0] != rows[2], "the second draw cuts elsewhere"
    outcome = first["outcome"]
    assert outcome["value"] == pytest.approx(
        sum(max(row["accuracy"] for row in histories(run.folder)) for run in runs) / 4
    )
    once = trials_of_one_draw(base, tmp_path / "once")["scores"]["accuracy"]
    widths = [one["high"] - one["low"] for one in (once, outcome["scores"]["accuracy"])]
    assert widths[1] > 0.8 * widths[0], "the same rows answered twice are no more rows"


def histories(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def trials_of_one_draw(base: dict[str, Any], folder: Path) -> dict[str, Any]:
    tunesmith.search_settings(base, [f"output={folder}"], trials=1, strategy="grid")
    found: dict[str, Any] = trials(folder)[0]["outcome"]
    return found
