"""A run that was killed ends as if it had never been: delta, head, scores, predictions and history, bit for bit."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tests.conftest import TEXTS, save_tiny_bert, write_csv, write_jsonl
from tunesmith.core.errors import CheckpointError, RecipeError
from tunesmith.training.loop import Loop

Recipe = dict[str, Any]

TIMES = ("seconds", "training_seconds", "examples_per_second", "peak_memory_bytes", "predicted_peak_memory_bytes")


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports are not compared: they hold times."""
    monkeypatch.setattr("tunesmith.runs.writing.render", lambda content: f"{content.title}\n")


@pytest.fixture
def recipe(recipe: Recipe) -> Recipe:
    return {**recipe, "evaluation": {"resamples": 100, "baselines": False}}


class Killed(Exception):
    """Stands for a process that is gone."""


def killed(recipe: Recipe, step: int, monkeypatch: pytest.MonkeyPatch, **words: Any) -> None:
    """Train until a step is about to be made, and stop dead."""
    timed = Loop._timed

    def dying(self: Loop, *given: Any) -> None:
        if self.steps == step:
            raise Killed
        timed(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_timed", dying)
        with pytest.raises(Killed):
            tunesmith.train(recipe, **words)


def files_of(folder: Path) -> dict[str, bytes]:
    """What must be the same, times and memory aside."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    summary = {key: value for key, value in json.loads(found.pop("metrics.json")).items() if key not in TIMES}
    summary["ensemble"].pop("cost", None)
    for row in summary["table"]:
        row.update(seconds=0, peak_bytes=0)
    for name in ("report.html", "fingerprint.json", "recipe.yaml", "openings.jsonl"):  # times, places
        found.pop(name, None)
    return {**found, "metrics": json.dumps(summary).encode()}


def assert_same(first: Path, second: Path) -> None:
    ours, theirs = files_of(first), files_of(second)
    assert ours.keys() == theirs.keys()
    assert not [name for name in ours if ours[name] != theirs[name]]


def changed(recipe: Recipe, **training: Any) -> Recipe:
    return {**recipe, "training": {**recipe["training"], **training}}


@pytest.mark.parametrize("step", [1, 6, 11])
def test_a_killed_run_ends_as_an_uninterrupted_one(
    recipe: Recipe, step: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = changed(recipe, checkpoint_every_steps=1)
    whole = tunesmith.train({**recipe, "output": recipe["output"] + "-whole"})
    killed(recipe, step, monkeypatch)
    folder = Path(recipe["output"])
    assert [item.name for item in folder.iterdir()] == ["checkpoints"]
    again = tunesmith.train(recipe, resume=True)
    assert f"going on from step {step}" in capsys.readouterr().err
    assert not (folder / "checkpoints").exists()
    assert_same(whole.folder, again.folder)


def writing(folder: Path, model: Path, **keys: Any) -> Recipe:
    rows = [{"question": f"what is {n} and {n + 1}", "answer": f"it is {2 * n + 1}"} for n in range(24)]
    write_jsonl(folder / "questions.jsonl", rows)
    return {
        "task": {"name": "question-answering-generative", "answered_rows": 2, "samples": 1,
                 "decoding": {"max_new_tokens": 4}},
        "model": str(model),
        "data": {"train": str(folder / "questions.jsonl"), "validation": 0.25},
        "method": {"name": "lora", "rank": 2, "dropout": 0.1},
        "training": {"epochs": 2, "batch_size": 5, "tokens_per_pass": 40, "learning_rate": 1e-2},
        "evaluation": {"resamples": 100},
        "output": str(folder / "run"),
        **keys,
    }  # fmt: skip


def check(recipe: Recipe, step: int, monkeypatch: pytest.MonkeyPatch) -> tunesmith.Run:
    """Kill a run, and compare its end with one that was left alone."""
    whole = tunesmith.train({**recipe, "output": recipe["output"] + "-whole"})
    killed(recipe, step, monkeypatch)
    again = tunesmith.train(recipe, resume=True)
    assert_same(whole.folder, again.folder)
    return again


CANDIDATES: list[dict[str, Any]] = [
    {}, {"method.rank": 2, "seed": 1, "training.epochs": 1}, {"training.batch_size": 11}, {"method": "bitfit"}
]  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "candidates": {"candidates": CANDIDATES},
    "kept rows": {"method": {"name": "lora", "layers": "top-half"}, "training": {"dropout": 0.0}},
    "kept rows on disk": {
        "method": {"name": "lora", "layers": "top-half"}, "training": {"dropout": 0.0, "cache": "disk"}, "seed": 4
    },
    "early stop": {"training": {"epochs": 40, "patience": 1, "learning_rate": 5e-2}},
    "pissa": {"method": {"name": "lora", "rank": 2, "init": "pissa", "dora": True}},
    "steps in passes": {"training": {"batch_size": 12, "tokens_per_pass": 40, "dropout": 0.1}},
    "rows of a label together": {"training": {"rows_per_label": 2, "best": "last"}},
    "snapshots": {"ensemble": {"name": "snapshots", "count": 2, "compare": False}},
    "bagging": {"ensemble": {"name": "bagging", "count": 2, "compare": False}, "combine": "weighted"},
}  # fmt: skip


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_of_training_goes_on_exactly(kind: str, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = KINDS[kind]
    training = {**recipe["training"], "checkpoint_every_steps": 2, **keys.get("training", {})}
    check({**recipe, **keys, "training": training}, 7, monkeypatch)


def test_a_run_on_augmented_texts_goes_on_exactly(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[Any] = [{"name": "swap", "rate": 0.3}, {"name": "typo", "rate": 0.3}, {"name": "delete", "rate": 0.2}]
    plain = changed(recipe, dropout=0.1, checkpoint_every_steps=2)
    again = check({**plain, "data": {**plain["data"], "augmentation": steps}}, 9, monkeypatch)
    other = tunesmith.train({**plain, "output": recipe["output"] + "-plain"})
    histories = [(run.folder / "history.jsonl").read_text() for run in (again, other)]
    assert histories[0] != histories[1], "other texts were read"


def test_a_run_that_writes_goes_on_exactly(tiny_writer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(changed(writing(tmp_path, tiny_writer), checkpoint_every_steps=1), 3, monkeypatch)


@pytest.mark.parametrize("tiny_pair", ["bart"], indirect=True)
def test_a_pair_that_writes_goes_on_exactly(tiny_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(changed(writing(tmp_path, tiny_pair), checkpoint_every_steps=3), 5, monkeypatch)


def test_going_on_from_an_earlier_run_goes_on_exactly(
    recipe: Recipe, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tunesmith.train({**recipe, "output": recipe["output"] + "-first"})
    write_csv(
        data_folder / "new.csv", [(f"{text} {n}", "parcel") for n in range(6) for text in ("my order", "it is late")]
    )
    second = {key: value for key, value in recipe.items() if key not in ("method", "model")}
    data = {"train": str(data_folder / "new.csv"), "validation": 0.3}
    given = {**second, "start_from": str(first.folder), "data": data}
    check(changed(given, checkpoint_every_steps=1, batch_size=4, best="last"), 3, monkeypatch)


# What may change ----------------------------------------------------------------------------------------------------


@pytest.fixture
def stopped(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A recipe whose run was killed at step 8, two steps into its second epoch."""
    recipe = changed(recipe, checkpoint_every_steps=2)
    killed(recipe, 9, monkeypatch)
    return recipe


def test_a_changed_recipe_is_named_with_both_values(stopped: Recipe) -> None:
    for keys, message in (
        ({"seed": 3}, "made by another recipe: seed was 0 and is 3. Only output, training.epochs, .* may change"),
        ({"method": {"name": "lora", "rank": 5}}, "method.rank was 4 and is 5"),
        ({"training.batch_size": 9}, "training.batch_size was 8 and is 9"),
        ({"training.epochs": 1}, "training.epochs=1: .*step-00000008 is in epoch 2 already. Ask for 2 or more"),
        ({"candidates": [{}, {"seed": 1}]}, "candidates was .* and is "),
        ({"evaluation": {"metrics": ["log-loss"]}}, "evaluation.metrics was None and is ..log-loss"),
    ):
        training = {key.partition(".")[2]: value for key, value in keys.items() if "." in key}
        others = {key: value for key, value in keys.items() if "." not in key}
        with pytest.raises(CheckpointError, match=message):
            tunesmith.train({**changed(stopped, **training), **others}, resume=True)
        assert (Path(stopped["output"]) / "checkpoints").is_dir()


def test_epochs_places_and_logging_may_change(stopped: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    moved = Path(stopped["output"] + "-moved")
    Path(stopped["output"]).rename(moved)
    train = Path(stopped["data"]["train"])
    train.rename(train.with_name("renamed.csv"))
    data = {**stopped["data"], "train": str(train.with_name("renamed.csv"))}
    given = {**changed(stopped, epochs=3, checkpoint_every_steps=5), "data": data, "output": str(moved)}
    run = tunesmith.train(given, resume=True)
    said = capsys.readouterr().err
    assert "since the checkpoint training.epochs was 2 and is 3, training.checkpoint_every_steps was 2 and is 5" in said
    assert "the learning rate falls over all epochs" in said
    assert run.summary["steps"] == 18 and len((moved / "history.jsonl").read_text().splitlines()) == 3


def test_a_changed_data_file_is_named(stopped: Recipe) -> None:
    path = Path(stopped["data"]["train"])
    path.write_text(path.read_text().replace("good morning", "good evening"))
    with pytest.raises(
        CheckpointError, match=r"made with other data .*: data\.train was '[0-9a-f]{32}' and is '[0-9a-f]{32}'"
    ):
        tunesmith.train(stopped, resume=True)


def test_changed_descriptions_of_labels_are_named(
    recipe: Recipe, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = data_folder / "described.yaml"
    path.write_text(f"{next(iter(TEXTS))}: one thing\n")
    given = changed(recipe, checkpoint_every_steps=2)
    given["data"] = {**given["data"], "label_descriptions": str(path)}
    killed(given, 5, monkeypatch)
    path.write_text(f"{next(iter(TEXTS))}: another thing\n")
    with pytest.raises(CheckpointError, match=r"made with other data .*: data\.label_descriptions was 'sha256:"):
        tunesmith.train(given, resume=True)


def test_another_base_model_is_named(stopped: Recipe, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = {**stopped, "model": str(save_tiny_bert(tmp_path / "other", seed=1))}
    with pytest.raises(CheckpointError, match="base_model_hash was 'sha256:.*' and is 'sha256:"):
        tunesmith.train(other, resume=True)


def test_another_code_version_is_named_and_training_goes_on(
    stopped: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tunesmith.runs.resuming.code", lambda: "9.9 (abc)")
    run = tunesmith.train(stopped, resume=True)
    said = capsys.readouterr().err
    assert "note: since the checkpoint code was '" in said and "and is '9.9 (abc)'. What follows may differ" in said
    assert run.summary["steps"] == 12


# Nothing to resume, unfinished and finished runs --------------------------------------------------------------------


def test_nothing_to_resume_starts_anew_and_a_finished_run_stays(
    recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tunesmith.train(recipe, resume=True)
    assert f"nothing to resume in {recipe['output']}: training starts anew" in capsys.readouterr().err
    before = (run.folder / "fingerprint.json").stat().st_mtime_ns
    left = run.folder / ".gone-checkpoints"  # of a kill while the last checkpoints were removed
    left.mkdir()
    assert tunesmith.train(recipe, resume=True).folder == run.folder and not left.exists()
    assert "is finished: nothing to resume" in capsys.readouterr().err
    assert (run.folder / "fingerprint.json").stat().st_mtime_ns == before
    with pytest.raises(CheckpointError, match="is a finished run of another recipe: training.epochs was 2 and is 5"):
        tunesmith.train(changed(recipe, epochs=5), resume=True)
    with pytest.raises(CheckpointError, match=r"another recipe: training\.clip_norm was 1\.0 and is None"):
        tunesmith.train(changed(recipe, clip_norm=None), resume=True)
    with pytest.raises(RecipeError, match="--resume goes on with a run, --overwrite replaces it"):
        tunesmith.train(recipe, resume=True, overwrite=True)


def test_an_unfinished_run_loads_and_says_so(stopped: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    run = tunesmith.Run.load(stopped["output"])
    said = f"{stopped['output']} is not finished: its last checkpoint is of step 8. Its command with --resume goes on."
    assert run.unfinished.startswith(said) and run.metrics == {} and run.fingerprint["seed"] == 0
    for ask in (lambda: run.predict("hello"), run.report, lambda: run.evaluate(stopped["data"]["test"])):
        with pytest.raises(CheckpointError, match="is not finished: .* Before that it has no answers"):
            ask()
    with pytest.raises(CheckpointError, match="holds a run that is not finished. Go on with it with --resume"):
        tunesmith.train(stopped)
    from tunesmith.cli.show import trained

    assert trained(run) == run.unfinished
    run = tunesmith.train(stopped, overwrite=True)
    assert not run.unfinished and "going on" not in capsys.readouterr().err and run.summary["steps"] == 12


def test_a_kill_in_the_first_checkpoint_leaves_a_folder_that_loads_and_starts_anew(recipe: Recipe) -> None:
    folder = Path(recipe["output"])
    half = folder / "checkpoints" / ".new-00000002"
    half.mkdir(parents=True)
    (half / "state.json").write_text("{")
    run = tunesmith.Run.load(folder)
    assert "ended while its first checkpoint was written" in run.unfinished and run.summary["steps"] == 0
    run = tunesmith.train(recipe, resume=True)
    assert not run.unfinished and run.summary["steps"] == 12


def test_a_run_that_is_replaced_stays_until_the_new_one_is_complete(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tunesmith.train(recipe)
    answer = first.predict("hello friend")
    other = {**changed(recipe, checkpoint_every_steps=3), "seed": 1}
    killed(other, 4, monkeypatch, overwrite=True)
    old = tunesmith.Run.load(recipe["output"])
    assert old.predict("hello friend") == answer and "its last checkpoint is of step 3" in old.unfinished
    run = tunesmith.train(other, resume=True)
    assert run.fingerprint["seed"] == 1 and not run.unfinished


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, None)])
def test_signals_leave_what_goes_on(
    number: int, code: int | None, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    timed = Loop._timed

    def struck(self: Loop, *given: Any) -> None:
        if self.steps == 7:
            signal.raise_signal(number)
        timed(self, *given)

    whole = tunesmith.train({**recipe, "output": recipe["output"] + "-whole"})
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_timed", struck)
        if code:
            with pytest.raises(SystemExit) as left:
                tunesmith.train(recipe)
            assert left.value.code == code
        else:
            run = tunesmith.train(recipe)
            assert run.summary["interrupted"] and run.summary["steps"] == 8 and run.predict("hello")[0].label
    said = capsys.readouterr().err
    assert "Go on with the same command and --resume." in said
    assert "its last checkpoint is of step 8" in tunesmith.Run.load(recipe["output"]).unfinished
    assert_same(whole.folder, tunesmith.train(recipe, resume=True).folder)


def test_files_beside_the_recipe_are_found_from_anywhere(
    recipe: Recipe, data_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run writes down where its files lie, and still is the run of a recipe that names them from beside it."""
    monkeypatch.chdir(data_folder)
    described = json.dumps({label: f"about {label}" for label in TEXTS})
    (data_folder / "described.yaml").write_text(described)
    write_csv(data_folder / "more.csv", [("another one", next(iter(TEXTS)))])
    data = {"also_train": ["more.csv"], "label_descriptions": "described.yaml"}
    given = {**recipe, "data": {**recipe["data"], **data}}
    run = tunesmith.train(given)
    found = run.recipe.resolved()["data"]
    assert found["also_train"] == [str(data_folder / "more.csv")]
    assert found["label_descriptions"] == str(data_folder / "described.yaml")
    tunesmith.train(given, resume=True)
    assert "is finished: nothing to resume" in capsys.readouterr().err
    (data_folder / "others.yaml").write_text(described)
    with pytest.raises(CheckpointError, match="data.label_descriptions was"):
        tunesmith.train({**given, "data": {**given["data"], "label_descriptions": "others.yaml"}}, resume=True)
