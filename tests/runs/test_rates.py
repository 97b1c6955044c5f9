"""The learning-rate range test: its losses, its suggestion, and that nothing stays changed."""

import hashlib
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import tunesmith
from tunesmith.cli.main import app
from tunesmith.core.errors import DataError, RecipeError
from tunesmith.runs.rates import suggest

pytestmark = pytest.mark.usefixtures("pictures")

RATES = [10 ** (-6 + step / 10) for step in range(60)]


def test_the_steepest_fall_is_suggested() -> None:
    losses = [3 - 2 / (1 + math.exp(-(step - 30) / 3)) + (math.exp((step - 50) / 2) if step > 45 else 0)
              for step in range(60)]  # fmt: skip
    rate, reason = suggest(RATES, losses)
    assert rate is not None and RATES[29] <= rate <= RATES[31]
    assert "falls fastest at 0.001" in reason and "rises after it" in reason
    assert suggest(RATES, [3.0 - step / 100 for step in range(60)])[1].endswith("the last rate tried.")


def test_nothing_is_suggested_where_nothing_is_learned() -> None:
    rate, reason = suggest(RATES, [1.0 + 0.005 * math.sin(step) for step in range(60)])
    assert rate is None and "never falls by 2 %" in reason
    rate, reason = suggest(RATES[:3], [1.0, 2.0, 9.0])
    assert rate is None and "diverged after 3 steps" in reason


def test_a_recipe_is_tested_and_left_alone(recipe: dict[str, Any], tmp_path: Path) -> None:
    def hashes() -> dict[str, str]:
        files = [path for path in Path(recipe["model"]).rglob("*") if path.is_file()]
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    before, output = hashes(), tmp_path / "range"
    found = tunesmith.lr_range(recipe, ["training.learning_rate=0.01"], output, low=1e-5, high=5.0, steps=25)
    again = tunesmith.lr_range(recipe, low=1e-5, high=5.0, steps=25)
    assert found["losses"] == again["losses"]  # it goes by the rates asked for, not by the recipe's
    assert hashes() == before and not Path(recipe["output"]).exists()
    assert found["rates"][0] == pytest.approx(1e-5) and len(found["rates"]) == len(found["losses"]) <= 25
    assert all(b / a == pytest.approx((5 / 1e-5) ** (1 / 24)) for a, b in pairwise(found["rates"]))
    saved = json.loads((output / "lr-range.json").read_text())
    assert saved["suggestion"] == found["suggestion"] and saved["reason"] == found["reason"]
    assert (output / "lr-range.png").read_bytes()[:4] == b"\x89PNG"
    assert (output / "lr-range.svg").read_text().startswith("<svg")


def test_the_command(recipe: dict[str, Any], tmp_path: Path) -> None:
    import yaml

    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    words = ["lr-range", str(tmp_path / "recipe.yaml"), "--output", str(tmp_path / "range"), "--steps", "12"]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0 and "lr-range.png" in found.stdout and "learning rate" in found.stdout


def test_what_is_refused(recipe: dict[str, Any], tmp_path: Path) -> None:
    for wrong in ({"low": 1.0, "high": 0.1}, {"steps": 5}, {"high": 20.0}):
        with pytest.raises(RecipeError, match="10 to 10,000 steps are allowed"):
            tunesmith.lr_range(recipe, **wrong)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file"):
        tunesmith.lr_range(recipe, output=tmp_path / "file")
    with pytest.raises(RecipeError, match="the range test trains one variant"):
        tunesmith.lr_range({**recipe, "candidates": [{"seed": 1}, {"seed": 2}]})


def test_a_method_that_trains_nothing_has_no_rate(recipe: dict[str, Any]) -> None:
    for method in ("none", "auto"):
        with pytest.raises(RecipeError, match=f"method: {method} has no learning rate of its own to test"):
            tunesmith.lr_range({**recipe, "method": method})
