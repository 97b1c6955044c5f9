"""A run that was killed ends as if it had never been: delta, head, scores, predictions and history, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tunesmith.training.loop import Loop

Recipe = dict[str, Any]

TIMES = ("seconds", "training_seconds", "examples_per_second", "peak_memory_bytes", "predicted_peak_memory_bytes")


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
