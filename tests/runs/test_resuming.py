"""A run that was killed ends as if it had never been: delta, head, scores, predictions and history, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tests.conftest import write_jsonl
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
    for row in summary["table"]:
        row.update(seconds=0, peak_bytes=0)
    for name in ("report.html", "fingerprint.json", "recipe.yaml"):  # times, places
        found.pop(name)
    return {**found, "metrics": json.dumps(summary).encode()}


def assert_same(first: Path, second: Path) -> None:
    ours, theirs = files_of(first), files_of(second)
    assert ours.keys() == theirs.keys()
    assert not [name for name in ours if ours[name] != theirs[name]]


def changed(recipe: Recipe, **training: Any) -> Recipe:
    return {**recipe, "training": {**recipe["training"], **training}}


@pytest.mark.parametrize("step", [1, 5, 6, 7, 11])
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
FUSED = {"name": "fusion", "members": [{"name": "adalora", "initial_rank": 4, "target_rank": 1}, {"name": "bitfit"}]}
KINDS: dict[str, dict[str, Any]] = {
    "passes": {"training": {"tokens_per_pass": 20, "clip_norm": 0.1, "label_smoothing": 0.1}},
    "dropout": {"method": {"name": "lora", "rank": 2, "dropout": 0.2}, "training": {"dropout": 0.2}},
    "candidates": {"candidates": CANDIDATES},
    "adalora": {"method": {"name": "adalora", "initial_rank": 4, "target_rank": 1, "interval": 1,
                           "initial_fraction": 0.2, "final_fraction": 0.2}},
    "fusion": {"method": FUSED},
    "kept rows": {"method": {"name": "lora", "layers": "top-half"}, "training": {"dropout": 0.0}},
    "kept rows on disk": {
        "method": {"name": "lora", "layers": "top-half"}, "training": {"dropout": 0.0, "cache": "disk"}, "seed": 4
    },
    "early stop": {"training": {"epochs": 40, "patience": 1, "learning_rate": 5e-2}},
    "full": {"method": "full"},
    "prompt": {"method": {"name": "p-tuning", "length": 3}},
    "head": {"method": "head-only", "task": {"name": "text-classification", "head_dropout": 0.3}},
    "pissa": {"method": {"name": "lora", "rank": 2, "init": "pissa", "dora": True}},
    "memory": {"training": {"memory_limit": 100_000}},
}  # fmt: skip


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_of_training_goes_on_exactly(kind: str, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = KINDS[kind]
    training = {**recipe["training"], "checkpoint_every_steps": 2, **keys.get("training", {})}
    check({**recipe, **keys, "training": training}, 7, monkeypatch)


def test_a_run_that_writes_goes_on_exactly(tiny_writer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(changed(writing(tmp_path, tiny_writer), checkpoint_every_steps=1), 3, monkeypatch)


def test_a_pair_that_writes_goes_on_exactly(tiny_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(changed(writing(tmp_path, tiny_pair), checkpoint_every_steps=3), 5, monkeypatch)
