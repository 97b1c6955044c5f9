"""Points that break a rule whatever they score are not tried, and a study goes on as if they had never been drawn."""

from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tunesmith.core.errors import RecipeError, TunesmithError
from tunesmith.core.files import read_json
from tunesmith.recipe.loading import load_recipe
from tunesmith.search import tuning
from tunesmith.search.database import Database
from tunesmith.search.rules import excluded_by, read_rules
from tunesmith.search.wanted import TuningSettings, read_wanted

pytest.importorskip("optuna", reason="the extra 'search' is not installed")


def with_epochs(space: dict[str, Any], epochs: Any, output: Path) -> dict[str, Any]:
    return {**space, "training": {**space["training"], "epochs": epochs}, "output": str(output)}


def tried(folder: Path) -> list[Any]:
    return [(one["overrides"], one["outcome"]["epochs"]) for one in read_json(folder / "trials.json", list)]


def test_a_grid_leaves_out_what_breaks_a_rule(space: dict[str, Any], tmp_path: Path) -> None:
    recipe = with_epochs(space, [1, 2, 3], tmp_path / "s")
    words = ["training.learning_rate=[0.001, 0.01]"]
    found = tunesmith.search_settings(recipe, words, trials=9, strategy="grid", width=2, rules="epochs <= 2")
    assert sorted(epochs for _, epochs in tried(tmp_path / "s")) == [1, 1, 2, 2]
    assert found["trials"]["all"] == 4 and "All" not in found["choice"]["sentence"]
    assert "2 points that the strategy drew break them whatever they score" in found["choice"]["sentence"]
    assert "and were not tried" in (tmp_path / "s" / "study.md").read_text()


def test_a_grid_whose_last_points_break_a_rule_goes_on_in_a_finer_one(space: dict[str, Any], tmp_path: Path) -> None:
    """With this seed a batch ends before it is full: the one point left of the first grid breaks the rule."""
    settings: dict[str, Any] = {"strategy": "grid", "width": 3, "rules": "epochs <= 2"}
    whole, stopped = (with_epochs(space, [1, 2, 3], tmp_path / name) for name in ("whole", "stopped"))
    tunesmith.search_settings(whole, trials=6, **settings)
    assert [one["size"] for one in read_json(tmp_path / "whole/trials.json", list)][3:5] == [1, 2]
    tunesmith.search_settings(stopped, trials=5, **settings)
    tunesmith.search_settings(stopped, trials=6, resume=True, **settings)
    assert tried(tmp_path / "stopped") == tried(tmp_path / "whole")


def test_a_strategy_draws_again_and_a_study_goes_on_with_the_same_trials_and_with_other_rules(
    space: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"strategy": "random", "width": 2}
    epochs, rules = {"low": 1, "high": 4}, {"rules": "epochs <= 1"}
    whole = with_epochs(space, epochs, tmp_path / "whole")
    found = tunesmith.search_settings(whole, trials=4, **settings, **rules)
    assert [epochs for _, epochs in tried(tmp_path / "whole")] == [1] * 4 and found["trials"]["all"] == 4
    finish = Database.finish

    def ended(self: Database, trials: Any, validation: str) -> None:
        if trials[0].number:
            raise KeyboardInterrupt
        finish(self, trials, validation)

    killed = with_epochs(space, epochs, tmp_path / "killed")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Database, "finish", ended)
        tunesmith.search_settings(killed, trials=4, **settings, **rules)
    tunesmith.search_settings(killed, trials=4, resume=True, **settings, **rules)
    assert tried(tmp_path / "killed") == tried(tmp_path / "whole")
    tunesmith.search_settings(killed, trials=8, resume=True, **settings)
    more = tried(tmp_path / "killed")
    assert more[:4] == tried(tmp_path / "whole") and {epochs for _, epochs in more[4:]} - {1}


def test_draws_end_where_so_many_in_a_row_break_a_rule(
    space: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tuning, "_PASSED", 3)
    recipe = with_epochs(space, {"low": 1, "high": 4}, tmp_path / "s")
    settings: dict[str, Any] = {"strategy": "random", "width": 8, "rules": "epochs <= 1"}
    found = tunesmith.search_settings(recipe, trials=40, **settings)
    assert 0 < found["trials"]["all"] < 40
    assert "3 points in a row break the rules (epochs <= 1): no more are drawn" in capsys.readouterr().err
    long = with_epochs(space, {"low": 1, "high": 100_000}, tmp_path / "long")
    with pytest.raises(TunesmithError, match="search.rules: 3 points in a row break epochs <= 1, so that nothing was"):
        tunesmith.search_settings(long, trials=4, **settings)


def test_what_is_known_before_training(space: dict[str, Any], tmp_path: Path) -> None:
    def excluded(rule: str, *words: str) -> bool:
        checked = load_recipe(with_epochs(space, 3, tmp_path), ["training.learning_rate=0.01", *words])
        return excluded_by(read_rules([rule], ["accuracy"]), checked) is not None

    assert excluded("epochs <= 2") and excluded("epochs >= 4")
    assert not excluded("epochs <= 3") and not excluded("epochs >= 3")
    assert not excluded("epochs <= 2", "training.patience=1")  # it may end training before
    assert excluded("epochs >= 4", "training.patience=1")
    assert not excluded("epochs <= 2", "training.max_steps=2")  # they may end training before, too
    assert excluded("epochs >= 4", "training.max_steps=2")
    assert [str(one) for one in read_rules(["trainable<=1234567", "epochs >= .5"], [])] == [
        "trainable <= 1234567", "epochs >= 0.5",
    ]  # fmt: skip
    assert not excluded("accuracy >= 0.9") and not excluded("trainable <= 1")  # known after training
    method = ["none", "lora"]
    for words in (  # each has points that keep to the rules
        {"training": {"epochs": {"low": 1, "high": 9}}, "rules": ["epochs >= 3", "epochs <= 4"]},
        {"training": {"epochs": {"low": 1, "high": 9}}, "method": method, "rules": ["epochs >= 5"]},
        {"training": [{"epochs": {"low": 1, "high": 9}}], "rules": ["epochs >= 5"]},
    ):
        rules = words.pop("rules")
        assert read_wanted({**space, "method": "lora", **words}, [], TuningSettings(rules=rules)).rules
    with pytest.raises(RecipeError, match="search.rules: every point of the space breaks 'epochs >= 5'"):
        read_wanted({**space, "method": ["none"]}, [], TuningSettings(rules="epochs >= 5"))
    with pytest.raises(
        RecipeError, match="search.rules: every point of the space breaks 'epochs <= 2'. Change the rule"
    ):
        tunesmith.search_settings(with_epochs(space, [3, 4], tmp_path / "s"), trials=2, rules="epochs <= 2")
