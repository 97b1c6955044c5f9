"""A soft prompt as its nearest words."""

import json
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tunesmith.cli.main import app
from tunesmith.core.errors import CompatibilityError, RecipeError
from tunesmith.runs.words import prompt_words

Recipe = dict[str, Any]


def tuned(recipe: Recipe, output: Path, method: Recipe, rate: float) -> tunesmith.Run:
    training = {"epochs": 1, "learning_rate": rate}
    return tunesmith.train({**recipe, "method": method, "training": training, "output": str(output)})


def test_a_prompt_is_near_the_text_it_started_from(recipe: Recipe, tmp_path: Path) -> None:
    method = {"name": "prompt-tuning", "length": 3, "start": "text", "start_text": "thanks my friend"}
    run = tuned(recipe, tmp_path / "still", method, 1e-6)
    found = prompt_words(run, 2)
    assert [row[0].word for row in found] == ["thanks", "my", "friend"]
    assert all(row[0].angle < 0.01 and row[0].distance < 0.01 < row[1].angle for row in found)
    moved = prompt_words(tuned(recipe, tmp_path / "moved", method, 0.5), 2)
    assert min(row[0].distance for row in moved) > 0.1


def test_what_has_no_words(recipe: Recipe, tmp_path: Path) -> None:
    run = tuned(recipe, tmp_path / "prefix", {"name": "prefix", "length": 2}, 1e-3)
    with pytest.raises(CompatibilityError, match="keys and values"):
        prompt_words(run)
    with pytest.raises(RecipeError, match="at least 1"):
        prompt_words(run, 0)


def test_the_command(recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tuned(recipe, tmp_path / "run", {"name": "p-tuning", "length": 2}, 1e-3)
    capsys.readouterr()
    app(["prompts", "words", str(run.folder), "--count", "3", "--json"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)["virtual_tokens"]
    assert [len(token) for token in found] == [3, 3]
    assert all(token[0]["angle"] <= token[1]["angle"] <= token[2]["angle"] for token in found)
    app(["prompts", "words", str(run.folder)], standalone_mode=False)
    assert found[0][0]["word"] in capsys.readouterr().out
