"""A search of settings from end to end: together as alone, resumed as never stopped, mistakes and failures named."""

import json
import re
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tunesmith
from tests.conftest import TEXTS, save_tiny_bert, write_csv
from tunesmith.core.errors import CheckpointError, RecipeError, TunesmithError
from tunesmith.search import passes
from tunesmith.search import settings as searching
from tunesmith.search.best_trials import compare_best
from tunesmith.search.database import Database
from tunesmith.search.passes import Passes
from tunesmith.search.trials import Outcome, StudyTrial
from tunesmith.search.tuning import Search

pytest.importorskip("optuna", reason="the extra 'search' is not installed")

RATE = {"low": 1e-4, "high": 2e-2, "log": True}


@pytest.fixture(scope="module")
def base(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("search")
    train = [(f"{text} {extra}", label) for label, texts in TEXTS.items() for text in texts for extra in "abcd"]
    write_csv(folder / "train.csv", train)
    write_csv(folder / "test.csv", [(f"well {text}", label) for label, texts in TEXTS.items() for text in texts])
    return {
        "model": str(tiny_folder),
        "data": {"train": str(folder / "train.csv"), "test": str(folder / "test.csv"), "validation": 0.25},
        "method": {"name": ["lora", "bitfit"]},
        "training": {"epochs": 2, "batch_size": 8, "learning_rate": RATE},
        "evaluation": {"resamples": 100, "baselines": False},
    }


def kept(folder: Path) -> list[StudyTrial]:
    with sqlite3.connect(folder / "study.db") as file:
        found = file.execute("select value_json from trial_user_attributes where key = 'trial' order by trial_id")
        return [StudyTrial.of(json.loads(json.loads(row[0]))) for row in found]


def told(trials: list[StudyTrial]) -> list[Any]:
    """What must not depend on time."""
    return [(one.overrides, one.outcome.state, one.outcome.value, one.outcome.loss, one.reports) for one in trials]


@pytest.fixture(scope="module")
def study(base: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("study") / "study"
    settings = {"strategy": "random", "width": 3}
    return folder, tunesmith.search_settings({**base, "output": str(folder)}, trials=6, **settings)


def test_every_trial_is_what_it_would_be_alone(study: tuple[Path, dict[str, Any]], base: dict[str, Any]) -> None:
    folder, _ = study
    trials = kept(folder)
    assert [one.batch for one in trials] == [0, 0, 0, 1, 1, 1]
    assert {one.overrides[0] for one in trials} == {"method.name=lora", "method.name=bitfit"}
    for one in trials[:2]:
        run = tunesmith.train(base, [*one.overrides, f"output={folder.parent / str(one.number)}"])
        assert run.metrics["validation"]["accuracy"] == one.outcome.scores["accuracy"]
        rows = (run.folder / "history.jsonl").read_text().splitlines()
        row = json.loads(rows[one.outcome.best_epoch - 1])
        assert row["validation loss"] == pytest.approx(one.outcome.loss, rel=1e-5)


def test_the_best_trials_are_compared_row_by_row(study: tuple[Path, dict[str, Any]]) -> None:
    folder, found = study
    trials = {f"trial {one.number}": one for one in kept(folder) if one.outcome.state == "complete"}
    compared = json.loads((folder / "comparison.json").read_text())
    names = [one["name"] for one in compared["runs"]]
    assert names == sorted(trials, key=lambda name: trials[name].key(True)) and names[0] == f"trial {found['best']}"
    for one in compared["runs"]:
        assert one["metrics"]["accuracy"]["value"] == pytest.approx(trials[one["name"]].outcome.value)
        assert one["settings"] == trials[one["name"]].parameters
    assert len(compared["pairs"]) == len(names) * (len(names) - 1) // 2 and compared["split"] == "validation"
    page = (folder / "report.html").read_text()
    for title in ("The best trials on the same rows, with intervals and groups", "Every pair of them",
                  "Learning curves of the best trials", "Score against cost"):  # fmt: skip
        assert f"<h2>{title}</h2>" in page
    assert "trained numbers" in page and f"{len(names)} trials on the same {compared['rows']} rows" in page


def test_the_best_on_validation_is_kept_and_scored_once_on_test(study: tuple[Path, dict[str, Any]]) -> None:
    folder, found = study
    trials = kept(folder)
    best = min(trials, key=lambda one: (-(one.outcome.value or 0), one.outcome.loss))
    assert found["best"] == best.number and found["overrides"] == best.overrides
    run = tunesmith.Run(folder / "best")
    assert found["score"] == run.metrics["test"]["accuracy"]
    assert found["again_on_validation"]["value"] == found["chosen_by"]["value"] == best.outcome.value
    assert json.loads((folder / "result.json").read_text()) == found
    assert "flatters" in found["note"]


def test_test_rows_do_not_choose(study: tuple[Path, dict[str, Any]], base: dict[str, Any], tmp_path: Path) -> None:
    write_csv(tmp_path / "other.csv", [(text, "thanks") for texts in TEXTS.values() for text in texts])
    other = {**base, "data": {**base["data"], "test": str(tmp_path / "other.csv")}, "output": str(tmp_path / "study")}
    found = tunesmith.search_settings(other, trials=6, strategy="random", width=3)
    assert told(kept(tmp_path / "study")) == told(kept(study[0])) and found["score"] != study[1]["score"]


def torn(write: Any) -> Any:
    """The process ends while the second batch is written: one of its trials has ended, the others have not."""

    def writing(self: Database, one: StudyTrial, place: int) -> None:
        if one.number == 4:
            raise KeyboardInterrupt
        write(self, one, place)

    return writing


def unwritten(finish: Any) -> Any:
    """The process ends before it writes what came out of the second batch."""

    def finishing(self: Database, trials: Any, validation: str) -> None:
        if trials[0].number:
            raise KeyboardInterrupt
        finish(self, trials, validation)

    return finishing


@pytest.mark.parametrize("strategy", ["tpe", "asha"])
def test_a_study_that_was_killed_ends_as_one_that_was_not(
    strategy: str, base: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = {**base, "training": {**base["training"], "epochs": 3}}
    settings: dict[str, Any] = {"strategy": strategy, "width": 3, "trials": 6}
    if strategy == "tpe":
        settings["strategy_settings"] = {"startup": 3}
    whole = tunesmith.search_settings(recipe, [f"output={tmp_path / 'whole'}"], **settings)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if strategy == "tpe":
            patch.setattr(Database, "_write_ended", torn(Database._write_ended))
        else:
            patch.setattr(Database, "finish", unwritten(Database.finish))
        tunesmith.search_settings(recipe, [f"output={tmp_path / 'killed'}"], **settings)
    assert len(kept(tmp_path / "killed")) == (4 if strategy == "tpe" else 3)
    found = tunesmith.search_settings(recipe, [f"output={tmp_path / 'killed'}"], resume=True, **settings)
    assert told(kept(tmp_path / "killed")) == told(kept(tmp_path / "whole"))
    assert found["best"] == whole["best"] and found["score"] == whole["score"]
    if strategy == "asha":
        stopped = [one.outcome for one in kept(tmp_path / "whole") if one.outcome.state == "stopped"]
        assert stopped and all(one.epochs < 3 for one in stopped)


def test_a_trial_that_fails_is_recorded_and_the_others_go_on(base: dict[str, Any], tmp_path: Path) -> None:
    recipe = {
        **base,
        "method": {"name": "lora", "layers": {"choices": ["auto", "nothing-like-it"]}},
        "output": str(tmp_path / "s"),
    }
    recipe["training"] = {**base["training"], "learning_rate": 5e-3}
    found = tunesmith.search_settings(recipe, budget=2, strategy="grid")
    failed = next(one.outcome for one in kept(tmp_path / "s") if one.outcome.state == "failed")
    assert found["trials"] == {"all": 2, "complete": 1, "stopped": 0, "failed": 1, "repeated": 0}
    assert "nothing-like-it" in failed.reason


@pytest.mark.parametrize("error", [KeyError("a name"), OSError(28, "No space left on device"), TypeError()])
def test_a_trial_may_fail_of_anything(
    base: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    own = passes.prepare_one

    def prepared(checked: Any, *others: Any) -> Any:
        if checked.method.name == "bitfit":
            raise error
        return own(checked, *others)

    monkeypatch.setattr(passes, "prepare_one", prepared)
    words = ["training.learning_rate=0.005", "training.epochs=1", f"output={tmp_path / 's'}"]
    found = tunesmith.search_settings(base, words, trials=2, strategy="grid")
    failed = next(one.outcome for one in kept(tmp_path / "s") if one.outcome.state == "failed")
    assert found["trials"]["complete"] == 1 and failed.reason.startswith(type(error).__name__)
    assert failed.reason.endswith(str(error))


def test_trials_without_answers_are_named_and_baselines_are_of_the_same_base(
    study: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, found = study
    shutil.copytree(folder / "answers", tmp_path / "answers")
    trials, run = kept(folder), tunesmith.Run.load(found["run"])
    taken = trials[found["best"]]
    run.summary["baselines"] = {"majority": {"validation": run.metrics["validation"]}}
    (tmp_path / "answers" / f"{taken.number:05d}.parquet").unlink()
    other = next(one for one in trials if one.number != taken.number and one.outcome.state == "complete")
    trials[other.number] = replace(other, parameters={**other.parameters, "model.dtype": "bfloat16"})
    compared = compare_best(trials, tmp_path / "answers", (taken, run), "accuracy", True)
    assert compared is not None and f"trial {taken.number}" not in compared.names
    assert f"Left out, as their answers were not kept: trials {taken.number}." in compared.notes
    before = {one.name: one.baselines for one in compared.entries}
    assert before.pop(f"trial {other.number}") == {} and all("majority" in one for one in before.values())
    for one in (tmp_path / "answers").iterdir():
        one.unlink()
    assert compare_best(trials, tmp_path / "answers", (taken, run), "accuracy", True) is None


def test_time_is_kept_for_a_best_run_that_takes_longer_than_the_first_trial() -> None:
    def trial(number: int, seconds: float, value: float | None) -> StudyTrial:
        outcome = Outcome("failed" if value is None else "complete", value=value, seconds=seconds)
        return StudyTrial(number, number, 1, {}, [], [], 10.0, None, outcome)

    search = object.__new__(Search)
    search.wanted = SimpleNamespace(higher_is_better=True)  # type: ignore[assignment]
    for values, seconds in (([0.5, 0.6], 17.0), ([0.5, 0.4], 10.0), ([None, 0.4], 17.0), ([None, None], 10.0)):
        search.trials = [trial(0, 8.0, values[0]), trial(1, 15.0, values[1])]
        assert search._alone == seconds


def test_a_metric_without_a_value_on_the_rows_that_choose_is_named(base: dict[str, Any], tmp_path: Path) -> None:
    label = next(iter(TEXTS))
    write_csv(tmp_path / "one.csv", [(f"oh {text}", label) for text in TEXTS[label]])
    words = ["method=lora", "training.learning_rate=[0.001]", "training.epochs=1", f"output={tmp_path / 's'}"]
    words.append(f"data.validation={tmp_path / 'one.csv'}")
    for resume in (False, True):  # nothing of it is in the way when the study goes on
        with pytest.raises(TunesmithError, match=r"none of 1 trials .* roc-auc has no value on the validation rows"):
            tunesmith.search_settings(base, words, trials=1, strategy="grid", metric="roc-auc", resume=resume)


def test_points_that_come_again_are_not_trained_again(base: dict[str, Any], tmp_path: Path) -> None:
    words = ["method=lora", "training.epochs=1", "training.learning_rate=[0.001, 0.01]", f"output={tmp_path / 's'}"]
    found = tunesmith.search_settings(base, words, trials=5, strategy="random", width=2)
    trials = kept(tmp_path / "s")
    assert found["trials"]["repeated"] >= 3
    assert all(one.outcome == trials[one.same_as].outcome for one in trials if one.same_as is not None)


def test_a_grid_goes_on_with_finer_ones_and_resumes_within(base: dict[str, Any], tmp_path: Path) -> None:
    words = ["method=lora", "training.epochs=1", "training.learning_rate={low: 0.001, high: 0.1, log: true}"]
    for name in ("whole", "again"):
        settings: dict[str, Any] = {"strategy": "grid", "width": 2}
        if name == "again":
            tunesmith.search_settings(base, [*words, f"output={tmp_path / name}"], trials=3, **settings)
            settings["resume"] = True
        tunesmith.search_settings(base, [*words, f"output={tmp_path / name}"], trials=6, **settings)
    whole, again = (kept(tmp_path / name) for name in ("whole", "again"))
    assert [one.parameters for one in whole] == [one.parameters for one in again] and len(whole) == 6
    rates = [one.parameters["training.learning_rate"] for one in whole]
    assert sorted(rates[:2]) == pytest.approx([10**-2.5, 10**-1.5]) and len(set(rates)) == 6
    best = min(whole[:2], key=lambda one: one.key(True)).parameters["training.learning_rate"]
    assert all(abs(np.log10(rate / best)) <= 0.6 for rate in rates[2:4])


def test_a_search_that_was_killed_in_its_best_run_may_find_a_better_trial(
    base: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["method=lora", "training.epochs=[1, 8]", "training.learning_rate=0.02", f"output={tmp_path / 's'}"]

    def stopped(recipe: Any, overrides: list[str], **rest: Any) -> Path:
        tunesmith.train(recipe, overrides)
        raise KeyboardInterrupt

    settings: dict[str, Any] = {"strategy": "grid", "width": 1}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(searching, "train_recipe", stopped)
        tunesmith.search_settings(base, words, trials=1, **settings)
    found = tunesmith.search_settings(base, words, trials=2, resume=True, **settings)
    assert found["best"] == 1  # the seed's order: another trial than the one that the killed run was of
    assert found["again_on_validation"]["value"] == found["chosen_by"]["value"]
    epochs = (tmp_path / "s" / "best" / "history.jsonl").read_text().splitlines()
    assert len(epochs) == int(found["parameters"]["training.epochs"])


def test_a_pass_that_breaks_is_tried_one_by_one(
    base: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = Passes._fit

    def broken(self: Passes, loop: Any, rows: int) -> None:
        if len(loop.trials) > 1:
            raise RuntimeError("out of memory")
        fit(self, loop, rows)

    monkeypatch.setattr(Passes, "_fit", broken)
    found = tunesmith.search_settings(base, [f"output={tmp_path / 's'}"], trials=2, strategy="random")
    assert found["trials"]["complete"] == 2


def test_values_that_cannot_stand_beside_the_others_are_named_first(
    base: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "none.csv").write_text("text,label\n", encoding="utf-8")  # ends the search before its first trial
    words = ["method.rank=[2, 4]", f"data.train={tmp_path / 'none.csv'}", f"output={tmp_path / 's'}"]
    with pytest.raises(TunesmithError, match=r"none\.csv"):
        tunesmith.search_settings(base, words, trials=2)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Trials of")]
    assert len(told) == 1
    assert re.match(r"Trials of method.name=bitfit method.rank=2 .* will fail: .*unknown key 'rank'", told[0])


def test_a_space_whose_every_point_fails(base: dict[str, Any], tmp_path: Path) -> None:
    recipe = {
        **base,
        "method": {"name": "lora", "layers": {"choices": ["no-such", "nor-this"]}},
        "output": str(tmp_path / "s"),
    }
    recipe["training"] = {**base["training"], "learning_rate": 1e-3}
    with pytest.raises(TunesmithError, match=r"(?s)none of 2 trials was carried out.*no-such|nor-this"):
        tunesmith.search_settings(recipe, trials=5, strategy="grid")
    with pytest.raises(RecipeError, match=r"(?s)every point of the space fails.*needs at least two candidates"):
        tunesmith.search_settings({**recipe, "combine": "average"}, trials=5)


def test_a_budget_shorter_than_a_trial_says_how_long_one_takes(base: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"budget: 3 s is shorter than one trial, which takes about \d+ s"):
        tunesmith.search_settings(base, ["training.epochs=100000", f"output={tmp_path / 's'}"], budget="3s")


@pytest.mark.parametrize(
    ("overrides", "settings", "message"),
    [
        ([], {"trials": 2, "metric": "bleu"}, "search.metric: unknown choice 'bleu'"),
        ([], {"trials": 2, "metric": "last"}, "search.metric: 'last' says which epoch is kept and is no metric"),
        (["data.validation=null"], {"trials": 2}, "data.validation: a search chooses by validation rows"),
        ([], {}, "a search needs an end"),
        ([], {"trials": 0}, "allows nothing to be tried"),
        ([], {"trials": 2, "strategy": "beam"}, "unknown strategy for settings 'beam'"),
        (["training.epochs=[2, x]"], {"trials": 2}, r"training.epochs: 'x' is not allowed"),
        (["method.name=[lora, lorra]"], {"trials": 2}, "unknown method 'lorra'; did you mean 'lora'"),
        (["candidates=[{seed: 1}]"], {"trials": 2}, "candidates: a search makes candidates itself"),
        ([], {"trials": 2, "strategy": "cma-es"}, "evolves at least two ranges, and the space has 1"),
    ],
)
def test_mistakes_are_named_before_anything_is_loaded(
    base: dict[str, Any], tmp_path: Path, overrides: list[str], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        tunesmith.search_settings(base, [f"output={tmp_path / 's'}", *overrides], **settings)


def test_the_cheapest_within_one_standard_error_is_taken(
    study: tuple[Path, dict[str, Any]], base: dict[str, Any], tmp_path: Path
) -> None:
    shutil.copytree(study[0], tmp_path / "s")
    settings: dict[str, Any] = {"trials": 6, "strategy": "random", "width": 3, "resume": True}
    found = tunesmith.search_settings(base, [f"output={tmp_path / 's'}"], choose="one-standard-error", **settings)
    complete = [one for one in kept(tmp_path / "s") if one.outcome.state == "complete"]
    best = study[1]["chosen_by"]
    error = (best["high"] - best["low"]) / 2 / NormalDist().inv_cdf(0.975)
    near = [one for one in complete if abs((one.outcome.value or 0) - best["value"]) <= error]
    least = min(one.outcome.trainable for one in near)
    taken = complete[found["best"]]
    assert taken.outcome.trainable == least < max(one.outcome.trainable for one in near)
    assert found["choice"]["rule"] == "one-standard-error" and found["choice"]["best"] == study[1]["best"]
    assert found["choice"]["sentence"] in (tmp_path / "s" / "study.md").read_text()
    assert found["again_on_validation"]["value"] == taken.outcome.value
    with pytest.raises(RecipeError, match="search.choose: one-standard-error needs a score with an interval"):
        tunesmith.search_settings(base, ["training.best=validation loss"], trials=2, choose="one-standard-error")


def test_a_search_begins_with_the_best_of_earlier_studies(
    study: tuple[Path, dict[str, Any]], base: dict[str, Any], tmp_path: Path
) -> None:
    ranked = sorted(kept(study[0]), key=lambda one: one.key(True))
    middle = sorted(one.parameters["training.learning_rate"] for one in ranked[:4])[1:3]
    low, high = middle[0] * 0.99, middle[1] * 1.01
    words = [f"training.learning_rate={{low: {low}, high: {high}, log: true}}", f"output={tmp_path / 's'}"]
    before = (study[0] / "study.db").read_bytes()
    settings: dict[str, Any] = {"strategy": "tpe", "width": 3, "warm_start": [str(study[0])], "warm_each": 4}
    found = tunesmith.search_settings(base, words, trials=3, **settings)
    inside = [one.parameters for one in ranked[:4] if low <= one.parameters["training.learning_rate"] <= high]
    told_of = found["warm_start"]["studies"][0]
    assert len(inside) == 2 == len(told_of["outside"])
    assert [one.parameters for one in kept(tmp_path / "s")][:2] == inside == [
        one["parameters"] for one in told_of["taken"]
    ]  # fmt: skip
    assert "2 of its best trials come first, 2 are outside" in found["warm_start"]["sentences"][0]
    assert (study[0] / "study.db").read_bytes() == before
    with pytest.raises(CheckpointError, match="another search: warm start is None, there it was"):
        tunesmith.search_settings(base, words, trials=3, resume=True, **{**settings, "warm_start": []})


def test_studies_that_cannot_be_begun_with(
    study: tuple[Path, dict[str, Any]], base: dict[str, Any], tmp_path: Path
) -> None:
    def searched(folder: Path, *words: str) -> None:
        tunesmith.search_settings(base, [*words, f"output={tmp_path / 's'}"], trials=2, warm_start=[str(folder)])

    with pytest.raises(CheckpointError, match="search.warm_start: .* holds no study of `tunesmith search`"):
        searched(tmp_path / "nothing")
    with pytest.raises(RecipeError, match="they share no parameter. Leave it out, or open the same fields"):
        searched(study[0], "method=lora", "training.learning_rate=0.01", "training.batch_size=[4, 8]")
    other = tmp_path / "other"
    shutil.copytree(study[0], other)
    with sqlite3.connect(other / "study.db") as file:
        file.execute(
            """update study_user_attributes set value_json = replace(value_json, '"format": 1', '"format": 0')"""
        )
    with pytest.raises(CheckpointError, match="another version: format 0, and this is 1. Leave it out of search.warm"):
        searched(other)
    (other / "study.db").write_bytes(b"no database" * 100)
    with pytest.raises(CheckpointError, match="cannot be read as a study.*Leave it out of search.warm_start"):
        searched(other)
    assert not (tmp_path / "s").exists()


def test_two_processes_do_not_search_in_one_folder(tmp_path: Path) -> None:
    first = Database(tmp_path / "s", {}, True)
    with pytest.raises(CheckpointError, match=f"another process is searching in {tmp_path / 's'}. Take trials of its"):
        Database(tmp_path / "s", {}, True)
    first.close()
    Database(tmp_path / "s", {}, True, "resume").close()


@pytest.mark.parametrize("changed", ["train", "other", "words", "model"])
def test_a_study_of_other_rows_or_another_model_is_refused(base: dict[str, Any], tmp_path: Path, changed: str) -> None:
    """Every file counts that a trial may read, the second choice of training rows too."""
    files = {name: Path(shutil.copy(base["data"]["train"], tmp_path / f"{name}.csv")) for name in ("train", "other")}
    model = Path(shutil.copytree(base["model"], tmp_path / "model"))
    data = {"train": {"choices": list(map(str, files.values()))}, "validation": base["data"]["train"]}
    files["words"] = tmp_path / "words.yaml"
    files["words"].write_text("greeting: someone says hello\n")
    data["label_descriptions"] = str(files["words"])
    recipe = {**base, "model": str(model), "data": {**data, "leakage": "keep"}, "output": str(tmp_path / "s")}
    settings: dict[str, Any] = {"strategy": "random", "width": 2}
    tunesmith.search_settings(recipe, trials=2, **settings)
    before = kept(tmp_path / "s")
    if changed == "model":
        save_tiny_bert(model, 1)
    else:
        files[changed].write_text(files[changed].read_text().replace("hello", "hallo"))
    name = {"model": "model", "words": "label_descriptions"}.get(changed, "train rows")
    said = f"study.db is the study of other data: {name} is 'sha256:.*, there it was 'sha256:.*Put the files back"
    with pytest.raises(CheckpointError, match=said):
        tunesmith.search_settings(recipe, trials=4, resume=True, **settings)
    assert kept(tmp_path / "s") == before


def test_a_study_of_another_version_or_search_is_refused(
    study: tuple[Path, dict[str, Any]], base: dict[str, Any], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(study[0], tmp_path / "s"))  # it is damaged below, and others read it
    again = [f"output={folder}"]
    settings: dict[str, Any] = {"trials": 6, "strategy": "random"}
    with pytest.raises(CheckpointError, match="exists. Go on with its study with --resume"):
        tunesmith.search_settings(base, again, **settings, width=3)
    with pytest.raises(CheckpointError, match="another search: width is 2, there it was 3"):
        tunesmith.search_settings(base, again, resume=True, **settings, width=2)
    with sqlite3.connect(folder / "study.db") as file:
        file.execute(
            """update study_user_attributes set value_json = replace(value_json, '"format": 1', '"format": 0')"""
        )
    with pytest.raises(CheckpointError, match="of another version: format 0, and this is 1"):
        tunesmith.search_settings(base, again, resume=True, **settings, width=3)
    (folder / "study.db").write_bytes(b"no database" * 100)
    with pytest.raises(CheckpointError, match="cannot be read as a study"):
        tunesmith.search_settings(base, again, resume=True, **settings, width=3)


def test_a_trial_that_breaks_a_rule_is_not_taken(
    study: tuple[Path, dict[str, Any]], base: dict[str, Any], tmp_path: Path
) -> None:
    shutil.copytree(study[0], tmp_path / "s")
    settings: dict[str, Any] = {"trials": 6, "strategy": "random", "width": 3, "resume": True}
    words, complete = [f"output={tmp_path / 's'}"], [one for one in kept(study[0]) if one.outcome.state == "complete"]
    best = next(one for one in complete if one.number == study[1]["best"]).outcome.trainable
    most = max(one.outcome.trainable for one in complete)
    rule = f"trainable <= {best - 1}" if best == most else f"trainable >= {best + 1}"
    found = tunesmith.search_settings(base, words, rules=rule, **settings)  # one text is a list of one
    able = [
        one for one in complete if (one.outcome.trainable < best) == (best == most) and one.outcome.trainable != best
    ]
    assert found["best"] == min(able, key=lambda one: one.key(True)).number
    assert found["choice"]["rules"] == [rule]
    assert f"Without them trial {study[1]['best']} would be the best" in (tmp_path / "s" / "study.md").read_text()
    with pytest.raises(TunesmithError, match=r"complete trials keeps to search.rules \(accuracy >= 1.5: at best"):
        tunesmith.search_settings(base, words, rules=["accuracy >= 1.5"], **settings)


@pytest.mark.parametrize(
    ("rule", "said"),
    [("recal >= 0.5", "did you mean 'recall'"), ("accuracy > 0.5", "is no rule"), ("accuracy >= 1.2.3", "is no rule")],
)
def test_a_rule_that_is_none_is_named(base: dict[str, Any], tmp_path: Path, rule: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        tunesmith.search_settings(base, [f"output={tmp_path / 's'}"], trials=2, rules=[rule])
