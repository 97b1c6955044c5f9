"""A recipe that goes on from a run takes from it what it leaves open."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.core.errors import RecipeError
from tunesmith.recipe.loading import load_recipe
from tunesmith.recipe.starting import find_run, inherit_values

THEIRS = "task: text-generation\nmodel: {name: base}\nprompt: {end_token: '.'}\nmethod: full\n"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run" / "base").mkdir(parents=True)
    (tmp_path / "run" / "recipe.yaml").write_text(THEIRS)
    (tmp_path / "run" / "base" / "config.json").write_text("{}")
    return tmp_path / "run"


def test_only_what_is_left_out_is_taken(run: Path) -> None:
    found = inherit_values({"start_from": "run", "method": "lora"}, run.parent)
    assert found["method"] == "lora" and found["task"] == "text-generation"
    assert found["model"] == {"name": str(run / "base")}


@pytest.mark.parametrize("theirs", ["method: bitfit", "method: {name: lora, rank: 8, alpha: 3.0}"])
def test_settings_without_a_name_are_those_of_the_run_s_method(run: Path, theirs: str) -> None:
    (run / "recipe.yaml").write_text(THEIRS.replace("method: full", theirs))
    found = inherit_values({"start_from": "run", "method": {"rank": 4}}, run.parent)["method"]
    wanted = {"name": "bitfit"} if "bitfit" in theirs else {"name": "lora", "alpha": 3.0}
    assert found == {**wanted, "rank": 4}
    other = {"start_from": "run", "method": {"name": "ia3"}}
    assert inherit_values(other, run.parent)["method"] == {"name": "ia3"}


def test_nothing_is_taken_without_a_run(tmp_path: Path) -> None:
    for values in ({"seed": 1}, {"start_from": str(tmp_path / "none")}, {"start_from": 3}):
        assert inherit_values(values, tmp_path) == values


def test_a_recipe_is_checked_with_what_it_takes(run: Path) -> None:
    """Metrics are those of the run's task, not of the default one."""
    given = {"start_from": str(run), "data": {"train": "x.txt"}}
    assert load_recipe({**given, "evaluation": {"metrics": ["perplexity"]}}).task.name == "text-generation"
    with pytest.raises(RecipeError, match="unknown metric 'accuracy'"):
        load_recipe({**given, "evaluation": {"metrics": ["accuracy"]}})


def test_the_run_is_looked_up_beside_the_recipe(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run)
    assert find_run("run", run.parent) == run
    assert find_run("base", run.parent) == run / "base"


def test_a_recipe_of_the_earlier_run_that_cannot_be_read(run: Path) -> None:
    (run / "recipe.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match=r"start_from: .*recipe\.yaml cannot be read: .*\. Restore the file"):
        inherit_values({"start_from": "run"}, run.parent)
