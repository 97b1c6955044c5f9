"""A learning curve from end to end: nested shares, the last one as the recipe alone, nothing of test read."""

import json
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tests.conftest import TEXTS, write_csv, write_jsonl
from tunesmith.core.errors import CheckpointError, DataError, RecipeError, TunesmithError
from tunesmith.search.passes import Passes


@pytest.fixture(scope="module")
def base(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("curve")
    train = [(f"{text} {extra}", label) for label, texts in TEXTS.items() for text in texts for extra in "abcd"]
    write_csv(folder / "train.csv", train)
    return {
        "model": str(tiny_folder),
        "data": {"train": str(folder / "train.csv"), "validation": 0.25},
        "method": "lora",
        "training": {"epochs": 2, "batch_size": 8, "learning_rate": 1e-2},
        "evaluation": {"resamples": 100, "baselines": False},
    }


@pytest.fixture(scope="module")
def curve(base: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("curves") / "curve"
    with pytest.MonkeyPatch.context() as patch:
        carry_out, shares = Passes.carry_out, dict[int, Any]()

        def kept(self: Passes, *given: Any) -> Any:
            shares.update(self.rows or {})
            return carry_out(self, *given)

        patch.setattr(Passes, "carry_out", kept)
        found = tunesmith.learning_curve(base, output=folder, points=4, repeats=2, width=5)
    return folder, {**found, "shares": list(shares.values())}


def test_shares_are_nested_and_the_last_is_the_recipe_alone(
    curve: tuple[Path, dict[str, Any]], base: dict[str, Any], tmp_path: Path
) -> None:
    found = curve[1]
    sizes, shares = [one["rows"] for one in found["points"]], found["shares"]
    assert sizes == sorted(set(sizes)) and sizes[0] == 6 and sizes[-1] == 36 == found["rows"]
    assert [len(one) for one in shares] == [size for size in reversed(sizes) for _ in range(2)]
    assert all(set(small) <= set(large) for large, small in zip(shares, shares[2:], strict=False))
    assert set(shares[-1]) != set(shares[-2])
    run = tunesmith.train(base, [f"output={tmp_path / 'run'}"])
    assert found["points"][-1]["scores"][0] == run.metrics["validation"]["accuracy"]["value"]
    assert found["ahead"]["rows"] == 72 and found["gain"]["low"] <= found["gain"]["high"]


def test_the_folder_says_all_of_it(curve: tuple[Path, dict[str, Any]]) -> None:
    folder, found = curve
    written = json.loads((folder / "learning-curve.json").read_text())
    assert written["points"] == found["points"] and written["law"] == found["law"]
    for name in ("learning-curve.md", "report.html"):
        assert "wice the data (72 rows) would give" in (folder / name).read_text()
    assert found["report"] == str(folder / "report.html")


def test_test_rows_are_not_read_and_losses_fall(base: dict[str, Any], tmp_path: Path, pictures: None) -> None:
    scores = []
    for label in ("thanks", "parting"):
        write_csv(tmp_path / f"{label}.csv", [(f"well {text}", label) for text in TEXTS["thanks"]])
        data = {**base["data"], "test": str(tmp_path / f"{label}.csv")}
        words = ["search.points=3", "search.metric=log-loss", "training.epochs=1"]
        found = tunesmith.learning_curve({**base, "data": data}, words, repeats=2, output=tmp_path / label)
        scores.append(found["points"])
    assert scores[0] == scores[1] and found["higher_is_better"] is False and found["check"] is None
    assert "was not checked" in (tmp_path / label / "learning-curve.md").read_text()
    assert (tmp_path / label / "report.html").read_text().count("<svg") == 1


def test_rows_without_labels(tiny_writer: Path, tmp_path: Path) -> None:
    texts = [{"text": f"{text} {mark} " * 3} for texts in TEXTS.values() for text in texts for mark in "ab"]
    recipe = {
        "task": "text-generation", "model": str(tiny_writer), "method": "lora",
        "data": {"train": str(write_jsonl(tmp_path / "t.jsonl", texts)), "validation": 0.25},
        "training": {"epochs": 1, "batch_size": 4}, "evaluation": {"resamples": 100, "baselines": False},
    }  # fmt: skip
    found = tunesmith.learning_curve(recipe, points=3, repeats=2)
    assert found["higher_is_better"] is False and found["points"][0]["rows"] == 2 and "report" not in found


@pytest.mark.parametrize(
    ("words", "settings", "kind", "message"),
    [
        (
            ["data.validation=null", "data.test=0.2"],
            {},
            RecipeError,
            "a learning curve is scored on validation rows, and there are",
        ),
        (["method=none"], {}, RecipeError, "method: none trains nothing, so more rows change nothing"),
        (["candidates=[{seed: 1}, {seed: 2}]"], {}, RecipeError, "candidates: a learning curve makes its own"),
        (["search.metric=bleu"], {}, RecipeError, "search.metric: unknown choice 'bleu'"),
        ([], {"points": 2}, RecipeError, "points: 2 is not allowed"),
        ([], {"repeats": 1}, RecipeError, "repeats: 1 is not allowed"),
        ([], {"smallest": 0.97}, DataError, "train holds 36 rows; a learning curve needs 3 different sizes from 35"),
        (["training.rows_per_label=4"], {"points": 3, "repeats": 2}, TunesmithError, "cannot be trained on 6 rows"),
    ],
)
def test_mistakes_are_named(
    base: dict[str, Any], words: list[str], settings: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        tunesmith.learning_curve(base, words, **settings)


def test_a_folder_that_is_there_is_kept(curve: tuple[Path, dict[str, Any]], base: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="exists. Choose another, or remove it first"):
        tunesmith.learning_curve(base, output=curve[0])
