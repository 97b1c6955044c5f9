"""Splits by group, by time and by folds, written down row by row; augmentation in training."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tests.conftest import TEXTS, write_csv, write_jsonl
from tunesmith.core.errors import DataError, RecipeError
from tunesmith.core.files import read_json
from tunesmith.recipe.loading import load_recipe

Recipe = dict[str, Any]


@pytest.fixture
def rows() -> list[dict[str, str]]:
    found = [{"text": f"{text} {extra}", "label": label, "who": f"p{n}{extra}"}
             for label, texts in TEXTS.items() for n, text in enumerate(texts) for extra in "abcde"]  # fmt: skip
    return [{**row, "day": f"2024-{1 + n * 7 % 12:02d}-{1 + n % 28:02d}"} for n, row in enumerate(found)]


def carried_out(recipe: Recipe, rows: list[dict[str, str]], folder: Path, **data: Any) -> dict[str, Any]:
    with open(folder / "train.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    run = tunesmith.train({
        **recipe,
        "data": {"train": str(folder / "train.csv"), "validation": 0.2, "test": 0.2, **data},
        "evaluation": {"resamples": 100, "baselines": False},
        "training": {"epochs": 1},
    })  # fmt: skip
    return read_json(run.folder / "splits.json")


def lines(splits: dict[str, Any], name: str) -> list[int]:
    assert splits[name]["rows"] == "line"
    return [number - 2 for number in splits[name]["numbers"]]


def test_groups_stay_together(recipe: Recipe, rows: list[dict[str, str]], data_folder: Path) -> None:
    splits = carried_out(recipe, rows, data_folder, group="who")
    people = {name: {rows[row]["who"] for row in lines(splits, name)} for name in splits}
    assert [len(people[name]) for name in ("train", "validation", "test")] == [12, 4, 4]
    assert len(people["train"] | people["validation"] | people["test"]) == 20
    assert splits["test"]["scored"] == "once, after training"


def test_the_latest_rows_are_held_out(recipe: Recipe, rows: list[dict[str, str]], data_folder: Path) -> None:
    splits = carried_out(recipe, rows, data_folder, time="day")
    days = {name: [rows[row]["day"] for row in lines(splits, name)] for name in splits}
    assert max(days["train"]) < min(days["validation"]) <= max(days["validation"]) < min(days["test"])
    assert abs(len(days["test"]) - 12) <= 1 and abs(len(days["validation"]) - 12) <= 2
    rows[7]["day"] = "yesterday"
    recipe = {**recipe, "output": f"{data_folder}/again"}
    with pytest.raises(
        DataError, match=r"train.csv, line 9: 'yesterday' in column 'day' is neither a number nor a date"
    ):
        carried_out(recipe, rows, data_folder, time="day")
    with pytest.raises(DataError, match=r"unknown column 'dya'; did you mean 'day'.*Set data.group, data.time"):
        carried_out(recipe, rows, data_folder, time="dya")


def test_every_row_validates_in_one_fold(recipe: Recipe, rows: list[dict[str, str]], data_folder: Path) -> None:
    seen: list[int] = []
    for fold in range(3):
        folder = data_folder / str(fold)
        folder.mkdir()
        splits = carried_out({**recipe, "output": str(folder / "run")}, rows, folder, folds=3, fold=fold, test=None)
        seen += lines(splits, "validation")
        assert sorted(lines(splits, "train") + lines(splits, "validation")) == list(range(60))
    assert sorted(seen) == list(range(60))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"time": "day", "group": "who"}, "data.group: data.time holds the latest rows out"),
        ({"folds": 3, "fold": 3}, "data.fold: 3 is not among the folds 0 to 2"),
        ({"fold": 1}, "data.fold: it chooses one of data.folds"),
        ({"folds": 3, "validation": "a.csv"}, "data.folds: validation is a file already"),
        ({"group": "who", "validation": "a.csv"}, "data.group: validation and test are files"),
        ({"augmentation": ["swp"]}, r"data.augmentation\[0\]: unknown augmentation 'swp'; did you mean 'swap'"),
    ],
)
def test_contradictions_are_told(data: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_recipe({"data": {"train": "train.csv", **data}})


def test_texts_that_are_written_are_not_augmented() -> None:
    with pytest.raises(RecipeError, match="data.augmentation: it is for tasks with a head for labels"):
        load_recipe({"task": "text-generation", "data": {"train": "a.txt", "augmentation": ["swap"]}})


def test_training_sees_other_forms_and_repeats_bit_for_bit(recipe: Recipe, data_folder: Path) -> None:
    augmented = {
        **recipe,
        "data": {**recipe["data"], "augmentation": ["swap", {"name": "typo", "rate": 0.3}]},
        "evaluation": {"resamples": 100, "baselines": False},
    }
    first = tunesmith.train(augmented).folder
    second = tunesmith.train({**augmented, "output": f"{data_folder}/again"}).folder
    plain = tunesmith.train({**augmented, "data": recipe["data"], "output": f"{data_folder}/plain"}).folder
    for name in ("head.safetensors", "history.jsonl"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
        assert (first / name).read_bytes() != (plain / name).read_bytes()
    counts = [json.loads((folder / "metrics.json").read_text())["data"]["train"]["tokens"] for folder in (first, plain)]
    assert counts[0] == counts[1], "facts are of the rows as they are"


def test_numbers_beside_dates_have_no_order(recipe: dict[str, Any], tmp_path: Path) -> None:
    rows = [{"text": f"text {n}", "label": "ab"[n % 2], "day": str(n) if n == 7 else f"2024-01-{n + 1:02}"}
            for n in range(20)]  # fmt: skip
    data = {"train": str(write_jsonl(tmp_path / "t.jsonl", rows)), "time": "day", "validation": 0.2, "test": 0.2}
    with pytest.raises(DataError, match=r"column 'day' holds both numbers, as '7' \(line 8\), and dates"):
        tunesmith.train({**recipe, "data": data})


def test_leakage_that_leaves_nothing_is_named(recipe: dict[str, Any], data_folder: Path) -> None:
    train = str(data_folder / "train.csv")
    with pytest.raises(DataError, match=r"every one of 60 training rows also stands in another split.*named twice"):
        tunesmith.train({**recipe, "data": {"train": train, "test": train, "leakage": "drop"}})


def test_folds_stand_in_the_place_of_validation(recipe: dict[str, Any], data_folder: Path) -> None:
    data = {"train": str(data_folder / "train.csv"), "validation": None, "folds": 5, "fold": 2}
    assert load_recipe({**recipe, "data": data}).recipe.data.folds == 5
    run = tunesmith.train({**recipe, "data": data})
    assert run.summary["data"]["validation"]["rows"] == 12


def test_rows_of_further_files_are_listed_by_file(recipe: Recipe, data_folder: Path) -> None:
    more = [(f"{text} again {n}", label) for label, texts in TEXTS.items() for text in texts for n in range(3)]
    write_csv(data_folder / "more.csv", more)
    files = {name: str(data_folder / name) for name in ("train.csv", "more.csv")}
    data = {"train": files["train.csv"], "also_train": [files["more.csv"]], "validation": 0.3}
    runs = [
        tunesmith.train({**recipe, "data": data, "output": f"{data_folder}/{name}"}, [f"method.name={name}"])
        for name in ("lora", "vera")
    ]
    held = read_json(runs[0].folder / "splits.json")["validation"]
    assert [held["file"], *(one["file"] for one in held["more"])] == list(files.values())
    listed = []
    for part in (held, *held["more"]):
        assert part["rows"] == "line" and part["numbers"]
        texts = Path(part["file"]).read_text(encoding="utf-8").splitlines()
        listed += [texts[number - 1].rsplit(",", 1)[0] for number in part["numbers"]]
    found = tunesmith.compare(runs, split="validation")
    assert sorted(map(found.text, range(len(found.where)))) == sorted(listed)
