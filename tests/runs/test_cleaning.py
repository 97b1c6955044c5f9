"""Cleaning in a run: counted, listed with file and line, and done again for whatever the run is asked."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tests.conftest import TEXTS, save_tiny_writer, write_csv, write_jsonl
from tunesmith.core.errors import DataError, RecipeError
from tunesmith.recipe.loading import load_recipe

Recipe = dict[str, Any]


def cleaned(recipe: Recipe, *steps: Any, **data: Any) -> Recipe:
    return {
        **recipe,
        "data": {**recipe["data"], "cleaning": list(steps), **data},
        "evaluation": {"resamples": 100, "baselines": False},
        "training": {**recipe["training"], "epochs": 1},
    }


@pytest.fixture
def dirty(recipe: Recipe, data_folder: Path) -> Recipe:
    """The tiny recipe with four odd rows in lines 62 to 65 of train and one in line 14 of test."""
    rows = [(f"{text} {extra}", label) for label, texts in TEXTS.items() for text in texts for extra in "abcde"]
    odd = [("ok", "thanks"), ("hello there friend A", "greeting"), ("write <b>to</b> me", "greeting"),
           ("mail ann@example.org now", "greeting")]  # fmt: skip
    write_csv(data_folder / "train.csv", rows + odd)
    tests = [(f"well {text}", label) for label, texts in TEXTS.items() for text in texts]
    write_csv(data_folder / "test.csv", [*tests, ("mail bob@example.org", "greeting"), ("x", "greeting")])
    return {**recipe, "data": {**recipe["data"], "validation": str(data_folder / "test.csv")}}


def test_what_was_done_is_counted_and_listed_with_file_and_line(dirty: Recipe, data_folder: Path) -> None:
    run = tunesmith.train(cleaned(dirty, "html", "redaction", {"name": "length", "least": 3}, "duplicates"))
    listed = [json.loads(line) for line in (run.folder / "cleaning.jsonl").read_text().splitlines()]
    train, test = str(data_folder / "train.csv"), str(data_folder / "test.csv")
    assert [(one["step"], one["file"], one["where"], one["what"], one["why"]) for one in listed] == [
        ("html", train, "line 64", "changed", ""),
        ("redaction", train, "line 65", "changed", ""),
        ("redaction", test, "line 14", "changed", ""),
        ("redaction", test, "line 14", "changed", ""),
        ("length", train, "line 62", "dropped", "2 characters, fewer than 3"),
        ("duplicates", train, "line 63", "dropped", "repeats line 2"),
    ]
    assert run.summary["cleaning"]["length"] == {"dropped": 1}
    assert run.summary["data"]["train"]["dropped"] == {"length": 1, "duplicates": 1}
    assert run.summary["data"]["train"]["rows"] == 62
    assert run.summary["data"]["test"]["rows"] == 14, "filters leave the test rows alone, the short one too"
    assert any("html changed 1; redaction changed 3" in said for said in run.summary["warnings"])
    assert "ann@example.org" not in (run.folder / "report.html").read_text()


def test_a_run_reads_what_it_is_asked_as_it_read_its_training_rows(dirty: Recipe, data_folder: Path) -> None:
    run = tunesmith.train(cleaned(dirty, "html", "redaction"))
    again = tunesmith.Run.load(run.folder)
    raw, clean = again.predict_proba(["<i>mail</i> bob@example.org", "mail <MAIL_1>"])
    assert raw.tolist() == clean.tolist()
    (data_folder / "ask.txt").write_text("mail bob@example.org\n")
    assert again.predict_file(data_folder / "ask.txt")[0].probability == pytest.approx(clean.max(), rel=1e-5)
    scores = again.evaluate(data_folder / "test.csv")
    assert scores["log-loss"].value == pytest.approx(run.metrics["test"]["log-loss"]["value"], rel=1e-6)


def test_without_cleaning_nothing_is_listed(recipe: Recipe) -> None:
    run = tunesmith.train(cleaned(recipe))
    assert not (run.folder / "cleaning.jsonl").exists() and run.summary["cleaning"] == {}


def test_all_rows_filtered_away(dirty: Recipe) -> None:
    with pytest.raises(DataError, match=r"dropped every one of 64 training rows \(duplicates 1, length 63\).*Loosen"):
        tunesmith.train(cleaned(dirty, "duplicates", {"name": "length", "least": 900}))


def test_a_text_of_which_nothing_is_left(dirty: Recipe, data_folder: Path) -> None:
    write_csv(data_folder / "train.csv", [("<br>", "a"), ("fine", "b"), ("good", "a")])
    with pytest.raises(DataError, match=r"1 of 3 rows have an empty or null cell: line 2 \(text\)"):
        tunesmith.train(cleaned(dirty, "html"))


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (["htm"], r"data.cleaning\[0\]: unknown cleaning 'htm'; did you mean 'html'"),
        ([{"name": "length", "leats": 3}], r"data.cleaning\[0\].leats: unknown key 'leats'; did you mean 'least'"),
        ([{"name": "length", "least": -1}], r"data.cleaning\[0\].least: -1 is not allowed"),
        (["html", "html"], r"data.cleaning\[1\]: html stands twice"),
        ([{"least": 3}], r"data.cleaning\[0\]: unknown cleaning ''"),
        ("html", "data.cleaning"),
    ],
)
def test_mistakes_are_told_before_anything_is_read(recipe: Recipe, steps: Any, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_recipe({**recipe, "data": {**recipe["data"], "cleaning": steps}})


def test_a_mistake_in_a_list_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("data:\n  train: a.csv\n  cleaning:\n    - html\n    - {name: length, leats: 3}\n")
    with pytest.raises(RecipeError, match=r"line 5: data.cleaning\[1\].leats"):
        load_recipe(path)


def test_the_resolved_recipe_names_every_setting(recipe: Recipe) -> None:
    found = load_recipe({**recipe, "data": {**recipe["data"], "cleaning": ["length"]}}).resolved()
    assert found["data"]["cleaning"] == [{"name": "length", "least": 1, "most": None}]


def test_conversations(tmp_path: Path) -> None:
    rows = [{"question": f"who is number {n}", "answer": f"number {n} is n{n}@example.org, n{n}@example.org"}
            for n in range(12)]  # fmt: skip
    rows += [{"question": "write to a@example.org and b@example.org", "answer": "b@example.org or a@example.org?"}]
    recipe = {
        "task": "instruction-tuning",
        "model": str(save_tiny_writer(tmp_path / "writer")),
        "data": {"train": str(write_jsonl(tmp_path / "train.jsonl", [*rows, rows[0]])), "validation": 0.2,
                 "cleaning": ["redaction", "duplicates"]},
        "training": {"epochs": 1, "batch_size": 4},
        "evaluation": {"resamples": 100, "baselines": False},
        "output": str(tmp_path / "run"),
    }  # fmt: skip
    run = tunesmith.train(recipe)
    assert run.summary["cleaning"]["redaction"] == {"changed": 14}
    assert run.summary["cleaning"].get("duplicates", {"dropped": 1}) == {"dropped": 1}
    assert "@" not in json.dumps(run.summary["samples"])
    options = {"temperature": 0, "max_new_tokens": 4}
    assert run.generate("write to c@example.org", **options) == run.generate("write to <MAIL_1>", **options)


def test_one_long_text_is_not_cleaned_by_rows(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a line of text\n" * 50)
    recipe = {
        "task": "text-generation",
        "model": str(save_tiny_writer(tmp_path / "writer")),
        "data": {"train": str(tmp_path / "train.txt"), "cleaning": ["html"]},
        "output": str(tmp_path / "run"),
    }
    with pytest.raises(DataError, match=r"train\.txt: data\.cleaning is for rows, and this is one long text"):
        tunesmith.train(recipe)


def test_label_errors_are_dropped_corrected_or_listed(dirty: Recipe, data_folder: Path) -> None:
    wrong = [("hello there friend again", "thanks"), ("goodbye my friend again", "greeting")]
    rows = [(f"{text} {extra}", label) for label, texts in TEXTS.items() for text in texts for extra in "abcde"]
    write_csv(data_folder / "train.csv", rows + wrong)
    found = {}
    for do in ("drop", "correct", "list"):
        run = tunesmith.train(cleaned(dirty, {"name": "label-errors", "do": do}) | {"output": f"{data_folder}/{do}"})
        listed = [json.loads(line) for line in (run.folder / "cleaning.jsonl").read_text().splitlines()]
        found[do] = {one["where"]: one for one in listed}
        what = {"drop": "dropped", "correct": "relabelled", "list": "listed"}[do]
        assert run.summary["cleaning"]["label-errors"] == {what: len(listed)}
        assert run.summary["data"]["train"]["rows"] == 62 - (len(listed) if do == "drop" else 0)
        assert any(f"label-errors {what} {len(listed)}" in said for said in run.summary["warnings"])
    assert set(found["drop"]) == set(found["correct"]) == set(found["list"]) != set()
    whys = [one["why"] for one in found["correct"].values()]
    assert all(re.fullmatch(r"given (\w+), suggested (?!\1)\w+, p \S+ against \S+", why) for why in whys), whys


def test_label_errors_need_labels(recipe: Recipe) -> None:
    texts = {**recipe, "task": "text-generation", "data": {"train": "a.txt", "cleaning": ["label-errors"]}}
    with pytest.raises(
        RecipeError, match="label-errors is for tasks with a head for labels, not for 'text-generation'"
    ):
        load_recipe(texts)


def test_outliers_are_dropped_or_listed_with_file_and_line(dirty: Recipe, data_folder: Path) -> None:
    steps = [{"name": "outliers", "threshold": 1, "most": 0.05}, {"name": "label-errors", "do": "list"}]
    run = tunesmith.train(cleaned(dirty, *steps))
    listed = [json.loads(line) for line in (run.folder / "cleaning.jsonl").read_text().splitlines()]
    far = [one for one in listed if one["step"] == "outliers"]
    gone = [one["where"] for one in far if one["what"] == "dropped"]
    assert len(gone) == 3 and {one["file"] for one in far} == {str(data_folder / "train.csv")}
    assert all(re.match(r"neighbour \d+ lies \S+ away, usually \S+: \S+ spreads more", one["why"]) for one in far)
    assert run.summary["data"]["train"]["dropped"] == {"outliers": 3} and run.summary["data"]["train"]["rows"] == 61
    assert any(f"outliers listed {len(far) - 3} and dropped 3" in said for said in run.summary["warnings"])
    judged = [one["where"] for one in listed if one["step"] == "label-errors"]
    assert not set(judged) & set(gone), "the steps that follow see the rows that stayed"
