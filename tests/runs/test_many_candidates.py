"""Candidates in a recipe: one pass, the best on validation kept, the same answers as alone, mistakes named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from torch import Tensor

import tunesmith
from tunesmith.core.errors import RecipeError, TunesmithError
from tunesmith.recipe.loading import load_recipe
from tunesmith.training.loop import Loop, Work

pytestmark = pytest.mark.usefixtures("pictures")

CANDIDATES = [
    {"training.learning_rate": 1e-3},
    {"method.rank": 2, "seed": 1},
    {"method": {"name": "prefix", "length": 5}, "training": {"learning_rate": 1e-2}},
    {"method": "bitfit", "training": {"epochs": 1}},
]


def test_the_best_on_validation_is_kept_and_is_what_it_would_be_alone(recipe: dict[str, Any], tmp_path: Path) -> None:
    run = tunesmith.train({**recipe, "candidates": CANDIDATES})
    found = run.summary["candidates"]
    scores = [(-one["validation"]["accuracy"], one["validation"]["validation loss"]) for one in found]
    assert [one["chosen"] for one in found] == [score == min(scores) for score in scores]
    assert [one["epochs"] for one in found] == [2, 2, 2, 1]
    assert [one["method"]["name"] for one in found] == ["lora", "lora", "prefix", "bitfit"]
    assert [one["method"].get("rank") for one in found[:2]] == [4, 2]
    saved = yaml.safe_load((run.folder / "recipe.yaml").read_text())
    assert saved["candidates"] == []
    alone = tunesmith.train({**saved, "output": str(tmp_path / "alone")})
    texts = ["well hello there friend", "many thanks", "see you"]
    assert np.allclose(run.predict_proba(texts), alone.predict_proba(texts), atol=1e-4)
    assert "Candidates" in run.report().read_text() and "2: prefix, length=5" in run.report().read_text()


def test_a_candidate_that_diverges_is_dropped_and_said(recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    losses = Loop.losses

    def first_is_lost(self: Loop, work: Work) -> list[Tensor]:
        return [
            loss * float("nan") if trial.name.endswith("000") else loss
            for loss, (trial, _) in zip(losses(self, work), work, strict=True)
        ]

    monkeypatch.setattr(Loop, "losses", first_is_lost)
    run = tunesmith.train({**recipe, "candidates": [{}, {"seed": 1}]})
    first, second = run.summary["candidates"]
    assert first["diverged_at_step"] == 1 and not first["chosen"] and first["validation"] == {}
    assert second["diverged_at_step"] is None and second["chosen"]
    assert any("candidate 0 diverged at step 1" in warning for warning in run.summary["warnings"])
    assert "diverged" in run.report().read_text()


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        ({"data.train": "x.csv"}, r"candidates\[0\]\.data: candidates share it"),
        ({"training": {"dropout": 0.1}}, r"candidates\[0\]\.training\.dropout: candidates share it"),
        ({"training.precision": "bfloat16"}, r"candidates\[0\]\.training\.precision: candidates share it"),
        ({"training.tokens_per_pass": 64}, r"candidates\[0\]\.training\.tokens_per_pass: candidates share it"),
        ({"method": "lorra"}, r"candidates\[0\]\.method: unknown method 'lorra'; did you mean 'lora'"),
        ({"method.rnak": 3}, r"candidates\[0\]\.method\.rnak: unknown key 'rnak'; did you mean 'rank'"),
        ({"training.learning_rate": -1}, r"candidates\[0\]\.training\.learning_rate: -1 is not allowed"),
        (
            {"training": {"learning_rate": 1e-3}, "training.learning_rate": 2e-3},
            r"candidates\[0\]\.training\.learning_rate: given twice",
        ),
        ({"method": "lora", "method.name": "vera"}, r"candidates\[0\]\.method\.name: given twice"),
    ],
)
def test_mistakes_in_candidates_are_named(recipe: dict[str, Any], candidate: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe({**recipe, "candidates": [candidate]})


def test_all_candidates_diverging_is_an_error(recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    losses = Loop.losses
    monkeypatch.setattr(Loop, "losses", lambda self, work: [loss * float("nan") for loss in losses(self, work)])
    with pytest.raises(TunesmithError, match="loss of all 2 candidates is no longer a number"):
        tunesmith.train({**recipe, "candidates": [{}, {"seed": 1}]})
    assert not Path(recipe["output"]).exists()


def test_two_equal_candidates_are_a_mistake(recipe: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=r"candidates\[2\]: the same as candidates\[0\]"):
        load_recipe({**recipe, "candidates": [{}, {"seed": 1}, {"seed": recipe.get("seed", 0)}]})


def test_a_candidate_that_fits_no_layer_is_named(recipe: dict[str, Any]) -> None:
    with pytest.raises(TunesmithError, match=r"candidates\[1\]: layers: 'nowhere' matches no linear map"):
        tunesmith.train({**recipe, "candidates": [{}, {"method.layers": ["nowhere"]}]})
