"""Candidates as a user searches with them: no test file, soft prompts beside other methods, shorthand keys."""

from pathlib import Path
from typing import Any

import pytest

import tunesmith


def test_a_search_without_a_test_file_does_not_speak_of_one(
    recipe: dict[str, Any], data_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data_folder / "test.csv").unlink()
    keys = {**recipe, "data": {key: value for key, value in recipe["data"].items() if key != "test"}}
    soft = {"method": {"name": "prompt-tuning", "length": 3}, "training": {"learning_rate": 1e-2}, "seed": 1}
    run = tunesmith.train({**keys, "training": {**keys["training"], "head_learning_rate": 1e-3}, "candidates": [
        soft, {"method": "head-only", "training.learning_rate": 1e-3}
    ]})  # fmt: skip
    said = capsys.readouterr()
    assert "only it is kept" in said.out + said.err and "scored on test" not in said.out + said.err
    first, second = run.summary["candidates"]
    assert first["training"] == {"learning_rate": 1e-2} and second["training"] == {"learning_rate": 1e-3}
    assert first["method"]["name"] == "prompt-tuning" and first["method"]["length"] == 3 and first["seed"] == 1
    assert list(run.metrics) == ["validation"]
