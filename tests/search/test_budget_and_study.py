"""Budgets as users write them, and studies that go on."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tunesmith.core.errors import CheckpointError, RecipeError
from tunesmith.search.budget import Budget
from tunesmith.search.problem import BudgetSpent
from tunesmith.search.study import Study, Tried


def test_budgets() -> None:
    assert Budget.read("200").plain() == {"evaluations": 200, "seconds": None}
    assert (
        Budget.read(" 90s ").seconds == 90 and Budget.read("1.5m").seconds == 90 and Budget.read("1h").seconds == 3600
    )
    for text in ("0", "0s", 0):
        with pytest.raises(RecipeError, match="allows nothing"):
            Budget.read(text)
    for text in ("-3", "many", "", "3d"):
        with pytest.raises(RecipeError, match="60s"):
            Budget.read(text)
    with pytest.raises(RecipeError, match="at least 1"):
        Budget.read("0.5")


def test_shares_of_the_rows_add_up() -> None:
    budget = Budget(2)
    for _ in range(6):
        budget.spend(1 / 3)
    with pytest.raises(BudgetSpent):
        budget.spend(1 / 3)


def test_the_clock_goes_on() -> None:
    budget = Budget(None, 100.0)
    budget.begin()
    budget.spend(1)
    budget.resume_at(99.0)
    budget.spend(1)
    budget.resume_at(100.5)
    with pytest.raises(BudgetSpent):
        budget.spend(1)


def tried(number: int) -> Tried:
    return Tried(f"c{number}", 10, number / 10, 1.0, float(number), {"template": f"{number} {{text}}"})


def test_a_study_goes_on_after_a_torn_line(tmp_path: Path) -> None:
    folder, facts = tmp_path / "study", {"seed": 3, "strategy": {"name": "beam"}}
    study = Study(folder, facts)
    study.add(tried(1))
    study.add(tried(2))
    with open(folder / "tried.jsonl", "ab") as file:
        file.write(json.dumps({"identity": "c3"}).encode()[:-4])
    again = Study(folder, facts, resume=True)
    assert len(again) == 2 and again.find("c2", 10) == tried(2) and again.find("c2", 5) is None
    again.add(tried(3))
    assert Study(folder, facts, resume=True).find("c3", 10) == tried(3)


def test_what_a_study_refuses(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    Study(folder, {"seed": 2})
    Study(folder, {"seed": 3}).add(tried(1))  # nothing had been tried
    with pytest.raises(CheckpointError, match="--resume"):
        Study(folder, {"seed": 3})
    with pytest.raises(CheckpointError, match="seed is 4, there it was 3"):
        Study(folder, {"seed": 4}, resume=True)
    (folder / "tried.jsonl").write_text("{}\n")
    with pytest.raises(CheckpointError, match="line 1 is damaged"):
        Study(folder, {"seed": 3}, resume=True)
    with pytest.raises(CheckpointError, match="no search to go on"):
        Study(tmp_path / "none", {}, resume=True)


def test_a_budget_may_grow_and_not_fall_below_what_was_spent(tmp_path: Path) -> None:
    few = {"seed": 3, "budget": Budget(9.0).plain()}
    Study(tmp_path, few).add(replace(tried(7), spent=7.25))
    study = Study(tmp_path, {**few, "budget": Budget(20.0).plain()}, resume=True)
    for enough in (Budget(20.0), Budget(7.25), Budget(None, 7.0)):
        study.check_budget(enough)
    said = (
        f"budget: 7 evaluations are less than the 7.25 that the search in {tmp_path} has spent. Give at least 8; what"
    )
    with pytest.raises(RecipeError, match=re.escape(said)):
        study.check_budget(Budget(7.0))
    study.add(tried(8))
    for enough in (Budget(None, 7.5), Budget(None, 7.0)):  # 8 s were over when what began after 7 s ended
        study.check_budget(enough)
    with pytest.raises(RecipeError, match=r"budget: 5 s are less than the 7 s that .* has spent. Give at least 7s"):
        study.check_budget(Budget(None, 5.0))
