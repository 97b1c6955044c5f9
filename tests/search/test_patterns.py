"""Pattern-exploiting training on a tiny masked model; prompt-classification by several templates."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import tunesmith
from tests.conftest import TEXTS, write_jsonl
from tunesmith.cli.main import app
from tunesmith.core.errors import CheckpointError, DataError, RecipeError
from tunesmith.prompts.prompt import Prompt
from tunesmith.recipe.loading import load_recipe
from tunesmith.search.patterns import _last, _pattern, placed, taught

Recipe = dict[str, Any]
SPLITS = ("train", "test")
WORDS = {"greeting": "you", "parting": "now", "thanks": "so"}


def test_what_is_taught() -> None:
    first, second = np.array([[0.8, 0.2]]), np.array([[0.2, 0.8]])
    assert taught([first, second], [1, 1], 1.0) == pytest.approx(np.array([[0.5, 0.5]]))
    assert taught([first, second], [1, 0], 1.0) == pytest.approx(first)
    assert taught([first], [0.3], 2.0) == pytest.approx(np.array([[2 / 3, 1 / 3]]))  # square roots: 2 to 1
    assert taught([np.array([[1.0, 0.0]])], [1], 2.0)[0, 1] > 0


def test_the_rate_of_a_head_is_of_what_learns_from_the_patterns() -> None:
    recipe = {"data": {"train": "a.csv"}, "training": {"head_learning_rate": 1e-3}}
    asked = load_recipe(_pattern(load_recipe(recipe).resolved(), Prompt(template="{text} {label}"), Path("out")))
    assert asked.task.name == "prompt-classification" and asked.recipe.training.head_learning_rate is None


def test_further_files_are_found_beside_the_recipe_and_train_once(tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text("text,label\nhello,greeting\n")
    (tmp_path / "recipe.yaml").write_text("data: {train: a.csv, also_train: [more.csv]}\n")
    values = placed(load_recipe(tmp_path / "recipe.yaml"))
    assert values["data"]["also_train"] == [str(tmp_path / "more.csv")]
    last = _last(values, tmp_path / "taught.jsonl", {"validation": "held.jsonl"})  # holds the rows of all files
    assert last["data"]["also_train"] == [] and last["data"]["train"] == str(tmp_path / "taught.jsonl")
    assert last["data"]["validation"] == "held.jsonl" and values["data"]["also_train"]


def test_the_whole_way(recipe: Recipe, masked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, template in (("so", "{text} so {label}"), ("now", "{text} then {label}")):
        Prompt(template=template, label_words=WORDS).write(tmp_path / f"{name}.yaml")
    (tmp_path / "told.yaml").write_text("greeting: Someone comes.\n")
    rows = [{"text": f"{text} then", "label": "not read"} for texts in TEXTS.values() for text in texts]
    write_jsonl(tmp_path / "more.jsonl", rows)
    values = {**recipe, "model": str(masked), "training": {**recipe["training"], "epochs": 1},
              "evaluation": {"resamples": 100, "baselines": False}}  # fmt: skip
    del values["output"]
    values["data"] = {
        **values["data"],
        "label_descriptions": "told.yaml",
        "folds": 5,
    }  # beside the recipe, as all its paths are
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    words = [str(tmp_path / name) for name in ("recipe.yaml", "so.yaml", "now.yaml")]
    out = tmp_path / "out"
    app(["pet", *words, "--unlabelled", str(tmp_path / "more.jsonl"), "--output", str(out), "--json"],
        standalone_mode=False)  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    assert set(found["scores"]) == {"so", "now", "final", "plain"} and found["split"] == "test"
    assert sum(found["weights"].values()) == pytest.approx(1)
    lines = [json.loads(line) for line in (out / "taught.jsonl").read_text().splitlines()]
    runs = {name: tunesmith.Run.load(out / "patterns" / name) for name in ("so", "now")}
    soft = [line for line in lines if max(json.loads(line["soft"]).values()) < 1]
    assert [line["text"] for line in soft] == [row["text"] for row in rows] and len(lines) == 48 + len(rows)
    texts = [row["text"] for row in rows]
    chances = [runs[name].predict_proba(texts) for name in found["weights"]]
    wanted = taught(chances, list(found["weights"].values()), 2.0)
    assert np.allclose([list(json.loads(line["soft"]).values()) for line in soft], wanted, atol=1e-6)
    final = tunesmith.Run.load(out / "final")
    assert final.recipe.task.name == "text-classification" and final.recipe.recipe.data.soft_labels == "soft"
    held = [json.loads(line)["text"] for line in (out / "validation.jsonl").read_text().splitlines()]
    assert not set(held) & {line["text"] for line in lines}  # what validates never teaches
    assert found["gain"][0]["metric"] == "accuracy"
    with pytest.raises(CheckpointError, match="exists"):
        tunesmith.exploit_patterns(words[0], words[1:], tmp_path / "more.jsonl", out)
    _goes_on(words, tmp_path, out, found)
    values["data"].pop("label_descriptions")
    with pytest.raises(DataError, match="no data file"):
        tunesmith.exploit_patterns(values, words[1:], tmp_path / "nowhere.jsonl", tmp_path / "other")
    assert not (tmp_path / "other").exists()  # refused before a pattern was tuned
    with pytest.raises(RecipeError, match="weights"):
        tunesmith.exploit_patterns(values, words[1:], tmp_path / "more.jsonl", tmp_path / "new", weights="best")


def _goes_on(words: list[str], folder: Path, out: Path, found: dict[str, Any]) -> None:
    """What is finished is not trained again, and what is gone is; other rows are refused."""
    files = {path: path.stat().st_mtime_ns for path in (out / "patterns" / "so").rglob("*")}
    shutil.rmtree(out / "final")
    again = tunesmith.exploit_patterns(words[0], words[1:], folder / "more.jsonl", out, resume=True)
    assert again.summary() == found
    assert {path: path.stat().st_mtime_ns for path in (out / "patterns" / "so").rglob("*")} == files
    with pytest.raises(CheckpointError, match=r"temperature is 3\.0, there it was 2\.0"):
        tunesmith.exploit_patterns(words[0], words[1:], folder / "more.jsonl", out, resume=True, temperature=3.0)
    with pytest.raises(CheckpointError, match="prompts"):
        tunesmith.exploit_patterns(words[0], words[1:2], folder / "more.jsonl", out, resume=True)
    write_jsonl(folder / "others.jsonl", [{"text": "good evening to you all"}])
    with pytest.raises(CheckpointError, match="unlabelled rows is"):
        tunesmith.exploit_patterns(words[0], words[1:], folder / "others.jsonl", out, resume=True)
    with pytest.raises(CheckpointError, match="holds no pattern-exploiting training to go on with"):
        tunesmith.exploit_patterns(words[0], words[1:], folder / "more.jsonl", folder / "nothing", resume=True)


def test_what_is_refused_before_a_pattern_is_tuned(recipe: Recipe, masked: Path, tmp_path: Path) -> None:
    Prompt(template="{text} so {label}", label_words=WORDS).write(tmp_path / "so.yaml")
    Prompt(template="{label}", label_words=WORDS).write(tmp_path / "blind.yaml")
    values = {**recipe, "model": str(masked)}
    train = Path(values["data"]["train"])
    so, blind, out = tmp_path / "so.yaml", tmp_path / "blind.yaml", tmp_path / "out"
    write_jsonl(tmp_path / "more.jsonl", [{"text": "good evening to you"}])
    copy = tmp_path / "copy.yaml"
    copy.write_text(so.read_text())
    for prompts, file, said in (
        ([so, copy], tmp_path / "more.jsonl", "so and copy hold the same prompt, which would count twice"),
        ([so], train, r"train.csv \(unlabelled\): none of its \d+ rows is left: .*also stand in train"),
        ([so, blind], tmp_path / "more.jsonl", r"blind: prompt.template: '\{label\}' has no input field"),
    ):
        with pytest.raises((DataError, RecipeError), match=said):
            tunesmith.exploit_patterns(values, prompts, file, out)
        assert not out.exists()
    for changes, said in (
        (["data.validation=null"], r"data\.validation: there are no validation rows, and patterns are weighed"),
        (["method=none"], "method: method 'none' trains nothing"),
        (["data.row_weights=weight"], "data.row_weights: it is a column of labelled rows alone"),
        (["data.soft_labels=soft"], "data.soft_labels: it is a column of labelled rows alone"),
        (["data.teacher=nowhere"], "data.teacher: data.soft_labels says already what rows learn"),
    ):
        with pytest.raises(RecipeError, match=said):
            tunesmith.exploit_patterns(values, [so], tmp_path / "more.jsonl", out, changes)
        assert not out.exists()


def test_without_validation_rows_patterns_count_alike(
    recipe: Recipe, masked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("so", "now"):
        Prompt(template=f"{{text}} {name} {{label}}", label_words=WORDS).write(tmp_path / f"{name}.yaml")
    values = {**recipe, "model": str(masked), "training": {**recipe["training"], "epochs": 1}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    write_jsonl(tmp_path / "more.jsonl", [{"text": "good evening to you"}])
    words = [str(tmp_path / name) for name in ("recipe.yaml", "so.yaml", "now.yaml")]
    app(["pet", *words, "data.validation=null", "--unlabelled", str(tmp_path / "more.jsonl"), "--weights", "even",
         "--no-compare", "--output", str(tmp_path / "out"), "--json"], standalone_mode=False)  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    assert found["weights"] == {"so": 0.5, "now": 0.5} and found["split"] == "test"


def test_rows_that_are_known_are_not_labelled(
    recipe: Recipe, masked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Prompt(template="{text} so {label}", label_words=WORDS).write(tmp_path / "so.yaml")
    values = {**recipe, "model": str(masked), "training": {**recipe["training"], "epochs": 1},
              "evaluation": {"resamples": 100, "baselines": False}}  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    train, test = (list(csv.DictReader(Path(values["data"][name]).read_text().splitlines())) for name in SPLITS)
    known = [*train, test[0]]
    fresh = {"text": "good evening to you", "label": "x"}
    write_jsonl(tmp_path / "more.jsonl", [*known, fresh, fresh])
    words = [str(tmp_path / name) for name in ("recipe.yaml", "so.yaml")]
    app(["pet", *words, "--unlabelled", str(tmp_path / "more.jsonl"), "--output", str(tmp_path / "out"),
         "--no-compare", "method.rank=3"], standalone_mode=False)  # fmt: skip
    told = capsys.readouterr().err
    assert "of 63 rows 13 also stand in validation or test, 48 also stand in train, 1 repeat an earlier row" in told
    lines = [json.loads(line) for line in (tmp_path / "out" / "taught.jsonl").read_text().splitlines()]
    assert [line["text"] for line in lines if max(json.loads(line["soft"]).values()) < 1] == [fresh["text"]]
    assert tunesmith.Run.load(tmp_path / "out" / "final").recipe.method.rank == 3  # type: ignore[attr-defined]


def test_a_prompt_by_several_templates(recipe: Recipe, masked: Path, tmp_path: Path) -> None:
    """The mean over templates is the mean of the runs' own scorers; words need the same white space before them."""
    prompt = {"template": "{text} so {label}", "templates": ["now {text} {label}"], "label_words": WORDS}
    values = {**recipe, "task": "prompt-classification", "model": str(masked), "method": "none", "prompt": prompt,
              "evaluation": {"resamples": 100, "baselines": False}, "output": str(tmp_path / "both")}  # fmt: skip
    texts = ["goodbye friend", "good morning", "many thanks to you all"]
    both = tunesmith.train(values).predict_proba(texts)
    alone = []
    for number, template in enumerate(("{text} so {label}", "now {text} {label}")):
        own = {"template": template, "label_words": WORDS}
        run = tunesmith.train({**values, "prompt": own, "output": str(tmp_path / str(number))})
        alone.append(run.predict_proba(texts))
    assert np.allclose(both, np.mean(alone, axis=0), atol=1e-9) and not np.allclose(*alone, atol=1e-5)
    with pytest.raises(RecipeError, match="other white space"):
        tunesmith.train({**values, "prompt": {**prompt, "templates": ["{text} ({label})"]}, "output": "x"})
