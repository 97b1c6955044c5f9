"""Which trials of earlier studies come first, and what is said of the others."""

from typing import Any

import pytest

from tunesmith.search import warm_start
from tunesmith.search.space import Choices, Range, Space
from tunesmith.search.trials import Outcome, StudyTrial
from tunesmith.search.wanted import TuningSettings, read_wanted
from tunesmith.search.warm_start import read_warm

RATE = "training.learning_rate"


def earlier(patch: pytest.MonkeyPatch, *parameters: dict[str, Any]) -> None:
    """Let every folder hold a study of these trials, the best first."""
    trials = [
        StudyTrial(number, 0, 1, own, [], [], 0.0, None, Outcome("complete", value=1 - number / 10, loss=0.0))
        for number, own in enumerate(parameters)
    ]
    patch.setattr(warm_start, "read_earlier", lambda folder: (trials, True))


def test_a_trial_that_shares_no_parameter_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    space = Space({
        "method": Choices("method", {"lora": {"rank": Range("method[lora].rank", 1, 8, False, None, whole=True)}})
    })  # fmt: skip
    earlier(monkeypatch, {"method.alpha": 2.0}, {"method[lora].rank": 4})
    found = read_warm(["a"], 2, space)
    assert found.points == [{"method[lora].rank": 4}]
    assert found.studies[0]["outside"] == [{"trial": 0, "why": "it varied nothing that this search varies"}]


def test_no_more_come_first_than_a_first_generation_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are left would take the place of members that go on in the next generation."""
    recipe = {"data": {"train": "a.csv"}, "training": {"learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}}}
    earlier(monkeypatch, *({RATE: rate} for rate in (0.01, 0.02, 0.03)))
    settings: dict[str, Any] = {"warm_start": ("a",), "warm_each": 3}
    members = TuningSettings(strategy="population", strategy_settings={"members": 2}, **settings)
    found = read_wanted(recipe, [], members).warm
    assert found.points == [{RATE: 0.01}, {RATE: 0.02}]
    assert found.sentences() == [
        "warm start from a: 2 of its best trials come first, 1 are more than the first generation has members."
    ]
    assert len(read_wanted(recipe, [], TuningSettings(strategy="random", **settings)).warm.points) == 3
