"""Classes without training rows, from the recipe: every way, on texts and images, and what is refused."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

import tunesmith
from tests.conftest import save_drawings, write_csv
from tunesmith.cli.main import app
from tunesmith.core.errors import DataError, RecipeError
from tunesmith.evaluation.statistics import wilson
from tunesmith.recipe.loading import load_recipe
from tunesmith.runs import training

TABLE = "class,friend,night\nplain,0,0\nfriend,1,0\nnight,0,1\nboth,1,1\nneither,0,0.5\n"
SAID = {
    "plain": ["hi how are you", "thank you so much", "see you then"],
    "friend": ["hello there friend", "goodbye my friend", "thanks a lot friend"],
    "night": ["good night to you", "farewell and good night", "so night now"],
    "both": ["good night my friend", "friend good night", "night friend hello"],
}
RULES = {
    "name": "rules", "rules": {"friend": "friends > 0", "night": "nights > 0"},
    "measurements": {"name": "words", "lists": {"friends": ["friend"], "nights": ["night*"]}},
}  # fmt: skip


def rows_of(labels: list[str], ends: str) -> list[tuple[str, str]]:
    return [(f"{text} {end}", label) for label in labels for text in SAID[label] for end in ends]


@pytest.fixture
def given(recipe: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    seen = ["plain", "friend", "night"]
    (tmp_path / "table.csv").write_text(TABLE.replace("neither,0,0.5\n", ""))
    unseen = write_csv(tmp_path / "unseen.csv", rows_of(["both"], "abcd"))
    train, test = (
        write_csv(tmp_path / "seen.csv", rows_of(seen, "abc")),
        write_csv(tmp_path / "seen_test.csv", rows_of(seen, "de")),
    )
    return {
        **recipe, "data": {"train": str(train), "validation": None, "test": str(test), "unseen": str(unseen)},
        "method": "none", "attributes": {**RULES, "table": str(tmp_path / "table.csv")},
    }  # fmt: skip


def test_seen_classes_that_attributes_cannot_tell_apart_are_named(given: dict[str, Any]) -> None:
    Path(given["attributes"]["table"]).write_text("class,friend,night\nplain,0,0\nfriend,1,0\nnight,1,0\nboth,1,1\n")
    (said,) = [one for one in tunesmith.train(given).summary["warnings"] if "same value in every attribute" in one]
    assert "the classes 'friend' and 'night' have the same value in every attribute (1 such pairs)" in said


def test_rules_tell_an_unseen_class(given: dict[str, Any]) -> None:
    run = tunesmith.train(given)
    found = run.summary["unseen"]
    assert found["classes"] == ["both"] and found["unseen"]["value"] == 1.0 and found["seen"]["value"] == 1.0
    assert found["harmonic"]["low"] <= found["harmonic"]["value"] <= found["harmonic"]["high"]
    for name, rows in (("unseen", 12), ("seen", 18), ("zero_shot", 12)):
        assert (found[name]["low"], found[name]["high"]) == pytest.approx(wilson(found[name]["value"], rows, 0.95))
    assert any("unseen classes by attributes (rules)" in said for said in run.summary["warnings"])
    assert tunesmith.Run.load(run.folder).predict("hello there friend a")[0].label in SAID


def test_rows_that_say_little_are_told(given: dict[str, Any], tmp_path: Path) -> None:
    known = ("hello there friend a", "both")
    for rows, told in (
        (rows_of(["both"], "abcdefghijk"), []),
        ([*rows_of(["both"], "a"), known], ["1 rows", "only 4"]),
    ):
        write_csv(tmp_path / "unseen.csv", rows)
        run = tunesmith.train({**given, "output": f"{given['output']}{len(rows)}"})
        said = [one for one in run.summary["warnings"] if one.startswith("unseen: ")]
        assert len(said) == len(told) and all(part in one for part, one in zip(told, said, strict=True))


@pytest.mark.parametrize("way", ["model", {"name": "clusters", "clusters": 8}])
def test_other_ways_read_the_tuned_model(given: dict[str, Any], way: Any, tmp_path: Path) -> None:
    settings = way if isinstance(way, dict) else {"name": way}
    run = tunesmith.train({
        **given, "method": {"name": "lora", "rank": 4}, "attributes": {**settings, "table": str(tmp_path / "table.csv")}
    })  # fmt: skip
    found = run.summary["unseen"]
    assert found["name"] == settings["name"] and 0 <= found["unseen"]["low"] <= found["unseen"]["high"] <= 1


def test_the_command_line_takes_them(given: dict[str, Any], tmp_path: Path) -> None:
    bare = {key: value for key, value in given.items() if key != "attributes"}
    bare["data"] = {key: value for key, value in given["data"].items() if key != "unseen"}
    (tmp_path / "recipe.json").write_text(json.dumps(bare))
    words = ["attributes.name=model", f"attributes.table={tmp_path}/table.csv", f"data.unseen={tmp_path}/unseen.csv"]
    said = CliRunner().invoke(app, ["train", str(tmp_path / "recipe.json"), *words, "--json"])
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout)["unseen"]["name"] == "model"


def not_begun(*given: Any) -> None:
    pytest.fail("training was prepared")


def test_rows_that_cannot_be_measured_are_refused_before_training(
    drawings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "unseen" / "class3" / "blank.png")
    monkeypatch.setattr(training, "prepare", not_begun)
    with pytest.raises(DataError, match="has no ink: every pixel is alike"):
        tunesmith.train(drawings)


def test_too_few_rows_for_a_way_are_refused_before_training(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "prepare", not_begun)
    way = {"name": "clusters", "clusters": 500, "table": str(tmp_path / "table.csv")}
    with pytest.raises(DataError, match="clusters=500: the rows to learn from have 432 parts"):
        tunesmith.train({**given, "attributes": way})


@pytest.fixture
def drawings(tiny_vision: Path, tmp_path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(save_drawings(tmp_path / "all.zip", classes=4, each=8)) as archive:
        archive.extractall(tmp_path / "all")
    (tmp_path / "unseen").mkdir()
    (tmp_path / "all" / "drawings" / "class3").rename(tmp_path / "unseen" / "class3")
    (tmp_path / "table.csv").write_text("class,one,two\nclass0,0,0\nclass1,1,0\nclass2,0,1\nclass3,1,1\n")
    return {
        "task": "image-classification", "model": str(tiny_vision), "method": "none", "output": str(tmp_path / "run"),
        "data": {
            "train": str(tmp_path / "all" / "drawings"), "validation": None, "test": 0.3,
            "unseen": str(tmp_path / "unseen"),
        },
        "attributes": {
            "name": "rules", "table": str(tmp_path / "table.csv"),
            "rules": {"one": "holes >= 1", "two": "aspect > 0.9"},
        },
    }  # fmt: skip


def test_unseen_drawings(drawings: dict[str, Any]) -> None:
    run = tunesmith.train(drawings)
    found = run.summary["unseen"]
    assert found["classes"] == ["class3"] and 0 <= found["seen"]["low"] <= found["seen"]["high"] <= 1


def test_mistakes(given: dict[str, Any], tmp_path: Path) -> None:
    bare = {**given, "attributes": RULES}
    with pytest.raises(RecipeError, match="attributes.table: required"):
        load_recipe(bare)
    with pytest.raises(RecipeError, match="data.unseen: nothing reads it"):
        load_recipe({**given, "attributes": None})
    with pytest.raises(RecipeError, match="data.unseen: attributes are measured"):
        load_recipe({**given, "data": {**given["data"], "unseen": None}})
    with pytest.raises(DataError, match="'plain' has training rows, so it is not unseen"):
        tunesmith.train({**given, "data": {**given["data"], "unseen": given["data"]["test"]}})
    wrong = {**given["attributes"], "measurements": "figures", "rules": {"friend": "holes > 0", "night": "holes > 0"}}
    with pytest.raises(RecipeError, match="figures is of images, and the task 'text-classification' reads text"):
        tunesmith.train({**given, "attributes": wrong})
    (tmp_path / "table.csv").write_text(TABLE)
    with pytest.raises(DataError, match="the table has the class 'neither', which the data lacks"):
        tunesmith.train(given)
