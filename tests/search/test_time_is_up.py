"""A budget in time: a trial that outlasts it is ended, and said to be."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tunesmith
from tunesmith.core.files import read_json
from tunesmith.search import budget

pytest.importorskip("optuna", reason="the extra 'search' is not installed")


def test_a_trial_that_outlasts_the_budget_is_ended_between_epochs(
    space: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock goes on by a second with every look, so that the moment depends on nothing else."""
    ticks = itertools.count()
    monkeypatch.setattr(budget, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    training = {**space["training"], "learning_rate": 1e-3, "epochs": [2, 500]}
    recipe = {**space, "training": training, "output": str(tmp_path / "s")}
    found = tunesmith.search_settings(recipe, budget="120s", strategy="grid")
    short, long = read_json(tmp_path / "s" / "trials.json", list)
    assert (short["outcome"]["state"], short["outcome"]["epochs"]) == ("complete", 2)
    assert (long["outcome"]["state"], long["outcome"]["reason"]) == ("stopped", "the time was up")
    assert 2 < long["outcome"]["epochs"] < 120 and long["outcome"]["value"] is not None
    assert found["trials"]["stopped"] == 1
    assert "the time was up" in (tmp_path / "s" / "study.md").read_text()
