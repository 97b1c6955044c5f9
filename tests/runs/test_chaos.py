"""A few kills at random moments and full disks; `benchmarks/chaos.py` does fifty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

Recipe = dict[str, Any]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_killed_runs_load_go_on_and_end_the_same(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, data_folder: Path
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    chaos = __import__("chaos")
    monkeypatch.setattr("tunesmith.runs.writing.render", lambda content: f"{content.title}\n")
    given = {
        **recipe,
        "training": {**recipe["training"], "checkpoint_every_steps": 2},
        "evaluation": {"resamples": 100, "baselines": False},
    }
    struck = chaos.Chaos(given, seed=1)
    for blow in ("time", "file operation", "file operation", "full disk"):
        struck.strike(blow)
    assert [count["differences"] for count in struck.found.values()] == [0, 0, 0]
    assert struck.found["file operation"]["killed"] == 2 and struck.found["full disk"]["refused"] == 1
    assert sum(count["left over"] for count in struck.found.values()) == 0
