"""Method auto: folds, the decision, a whole run, and what it refuses."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import tunesmith
from tests.conftest import TEXTS, save_drawings, write_csv
from tunesmith.core.errors import CompatibilityError, DataError, RecipeError
from tunesmith.core.registry import components
from tunesmith.fewshot.choosers.auto import Auto
from tunesmith.runs import choosing
from tunesmith.training.loop import Loop

Recipe = dict[str, Any]
TEXT_WAYS = {name for name, way in components("ways").items() if not way.reads_images}


def test_every_label_is_spread_over_the_folds() -> None:
    labels = np.repeat(np.arange(5), [2, 3, 4, 7, 9])
    apart = np.arange(len(labels))
    first, again = (Auto(folds=3).parts(labels, apart, list("abcde"), 1) for _ in range(2))
    assert np.array_equal(first, again) and set(first) == {0, 1, 2}
    for code in range(5):
        counts = np.bincount(first[labels == code], minlength=3)
        assert counts.max() - counts.min() <= 1
    with pytest.raises(DataError, match="the label 'b' has one training row"):
        Auto().parts(np.array([0, 0, 1]), np.arange(3), ["a", "b"], 0)
    with pytest.raises(DataError, match=r"method\.folds=5: there are 4 training rows"):
        Auto(folds=5).parts(np.array([0, 0, 1, 1]), np.arange(4), ["a", "b"], 0)


def test_copies_of_a_row_are_held_out_together() -> None:
    """A copy that trains would answer for the row that is held out."""
    labels, copies = np.array([0, 0, 0, 0, 1, 1, 1]), np.array([7, 7, 7, 2, 3, 4, 4])
    for seed in range(8):
        fold = Auto(folds=2).parts(labels, copies, ["a", "b"], seed)
        assert all(len(set(fold[copies == text])) == 1 for text in copies)
        assert all(set(fold[labels == code]) == {0, 1} for code in (0, 1))
    with pytest.raises(DataError, match="the label 'b' has one training row, copies counted once"):
        Auto(folds=2).parts(labels, np.array([7, 7, 7, 2, 3, 3, 3]), ["a", "b"], 0)
    with pytest.raises(DataError, match="all 2 texts of the label 'b' are held out at once"):
        Auto(folds=3).parts(np.array([0, 0, 0, 0, 0, 0, 1, 1]), _same_fold_twice(), ["a", "b"], 0)


def _same_fold_twice() -> np.ndarray[Any, Any]:
    """Rows of the second label that are copies of two rows of the first which fall into one fold."""
    apart = np.arange(6)
    fold = Auto(folds=3).parts(np.zeros(6, dtype=int), apart, ["a"], 0)
    return np.append(apart, np.flatnonzero(fold == fold[0])[:2])


def test_copies_in_a_file_do_not_flatter_a_way(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    train = [(text, label) for label, texts in TEXTS.items() for text in texts]
    write_csv(Path(str(recipe["data"]["train"])), train * 3)
    kept, parts = [], Auto.parts

    def watched(self: Auto, *given: Any) -> Any:
        kept.append(parts(self, *given))
        return kept[-1]

    monkeypatch.setattr(Auto, "parts", watched)
    given = {**recipe, "data": {**recipe["data"], "validation": None}}
    tunesmith.train({**given, "method": {"name": "auto", "folds": 2, "seconds": 1e-6}})
    assert np.array_equal(kept[0], np.tile(kept[0][:12], 3))


def test_of_many_rows_a_draw_with_every_label_chooses(recipe: Recipe) -> None:
    labels = np.repeat(np.arange(3), [500, 5, 1])
    rows = Auto(rows=20).some(labels, 0)
    assert len(rows) == 20 and np.bincount(labels[rows]).tolist()[1:] >= [2, 1] and (np.diff(rows) > 0).all()
    assert np.array_equal(Auto(rows=20).some(labels[:20], 0), np.arange(20))
    run = tunesmith.train({**recipe, "method": {"name": "auto", "folds": 2, "rows": 20, "seconds": 1e-6}})
    assert "of the 20 training rows" in run.summary["choice"]["sentence"]
    assert run.summary["data"]["train"]["rows"] == 48, "all rows train"


def test_the_best_way_is_taken_and_among_equals_the_easier() -> None:
    right = {"zero-shot": np.array([1, 1, 0, 0]), "prototypes": np.array([1, 0, 1, 1]), "lora": np.array([1, 1, 1, 0])}
    found = Auto().decide({name: marks.astype(bool) for name, marks in right.items()}, {"linear-probe": "too slow"})
    assert found["way"] == "prototypes" and [row["accuracy"] for row in found["table"]] == [0.75, 0.75, 0.5]
    assert "it answers 75.0 % of the 4 training rows" in found["sentence"]
    assert (
        "lora 75.0 %, zero-shot 50.0 %" in found["sentence"]
        and "linear-probe was left out: too slow" in found["sentence"]
    )


def test_a_run_that_chooses(recipe: Recipe) -> None:
    training = {**recipe["training"], "patience": 2}  # which ways that keep the last epoch do not have
    given = {**recipe, "method": {"name": "auto", "folds": 2}, "training": training}
    runs = [tunesmith.train({**given, "output": f"{recipe['output']}{turn}"}) for turn in range(2)]
    choice = runs[0].summary["choice"]
    assert {row["way"] for row in choice["table"]} == TEXT_WAYS and not choice["left_out"]
    assert choice["table"] == runs[1].summary["choice"]["table"]
    assert choice["sentence"] in runs[0].report().read_text().replace("&#x27;", "'")
    assert runs[0].recipe.method.name == components("ways")[choice["way"]]().changes()["method"]["name"]
    assert (runs[0].folder / "head.safetensors").read_bytes() == (runs[1].folder / "head.safetensors").read_bytes()
    scores = tunesmith.Run.load(runs[0].folder).evaluate(recipe["data"]["test"])
    assert scores["accuracy"].value == runs[0].metrics["test"]["accuracy"]["value"]


def test_what_takes_too_long_is_left_out(recipe: Recipe) -> None:
    run = tunesmith.train({**recipe, "method": {"name": "auto", "seconds": 1e-6}})
    assert (
        set(run.summary["choice"]["left_out"]) == {"lora", "prompt"} and "left out" in run.summary["choice"]["sentence"]
    )


@pytest.mark.parametrize("name", sorted(TEXT_WAYS))
def test_every_way_runs_by_itself(recipe: Recipe, name: str) -> None:
    changes = components("ways")[name]().changes()
    task = {"name": "text-classification", **changes["task"]}
    training = {**changes.get("training", {}), **({"epochs": 1} if "training" in changes else {})}
    run = tunesmith.train({**recipe, "task": task, "method": changes["method"], "training": training})
    assert run.metrics["test"]["accuracy"]["value"] >= 0


def test_mistakes(recipe: Recipe, data_folder: Any) -> None:
    with pytest.raises(RecipeError, match="unknown key 'fold'; did you mean 'folds'"):
        tunesmith.train({**recipe, "method": {"name": "auto", "fold": 3}})
    with pytest.raises(RecipeError, match="goes with neither"):
        tunesmith.train({**recipe, "method": "auto", "candidates": [{"seed": 1}, {"seed": 2}]})
    with pytest.raises(RecipeError, match="goes with neither"):
        tunesmith.train({**recipe, "method": "auto", "task": "prompt-classification"})
    train = write_csv(data_folder / "one.csv", [("a b", "x"), ("c d", "x"), ("e f", "y"), ("g h", "x")])
    data = {"train": str(train), "validation": None, "test": str(train)}
    with pytest.raises(DataError, match="the label 'y' has one training row"):
        tunesmith.train({**recipe, "data": data, "method": "auto"})


def masked_folder(tiny_folder: Path, folder: Path) -> Path:
    """The tiny encoder with a head that fills in."""
    shutil.copytree(tiny_folder, folder)
    torch.manual_seed(0)
    config = transformers.BertConfig.from_pretrained(tiny_folder)
    transformers.BertForMaskedLM(config).save_pretrained(folder)
    return folder


def test_prompts_are_tried_with_the_mask_where_the_model_fills_in(
    recipe: Recipe, tiny_folder: Path, tmp_path: Path
) -> None:
    model = masked_folder(tiny_folder, tmp_path / "masked")
    changes = components("ways")["prompt"]().changes()
    given = {**recipe, "model": str(model), "method": {"name": "auto", "folds": 2}}
    words = {"hi": "greeting", "bye": "parting", "thanks": "thanks"}  # which the tiny tokenizer knows
    rows = [(f"{text} {more}", label) for label, old in words.items() for text in TEXTS[old] for more in "ab"]
    train = write_csv(tmp_path / "train.csv", rows)
    given["data"] = {"train": str(train), "validation": None, "test": str(train)}
    run = tunesmith.train(given)
    table = {row["way"]: row["accuracy"] for row in run.summary["choice"]["table"]}
    assert "prompt" in table and not run.summary["choice"]["left_out"]
    taken = tunesmith.train({**given, "task": changes["task"], "method": "lora", "output": str(tmp_path / "prompt")})
    assert taken.recipe.task.suited(transformers.AutoConfig.from_pretrained(model)).scoring == "masked"


def test_a_way_that_does_not_go_with_the_recipe_is_left_out_and_why(recipe: Recipe) -> None:
    given = {**recipe, "task": {"name": "text-classification", "reject": {}}, "method": {"name": "auto", "folds": 2}}
    choice = tunesmith.train(given).summary["choice"]
    assert "task.reject" in choice["left_out"]["prompt"]


def test_images_are_chosen_for_too(tiny_vision: Path, tmp_path: Path) -> None:
    drawings = save_drawings(tmp_path / "drawings.zip", classes=3, each=6)
    run = tunesmith.train({
        "task": "image-classification", "model": str(tiny_vision), "method": {"name": "auto", "folds": 2},
        "data": {"train": str(drawings), "validation": None, "test": 0.3}, "output": str(tmp_path / "run"),
    })  # fmt: skip
    assert {row["way"] for row in run.summary["choice"]["table"]} == {"linear-probe", "lora-on-images", "prototypes"}


def test_labels_that_are_one_to_the_tokenizer(recipe: Recipe, tmp_path: Path) -> None:
    """Texts of the same unknown tokens are one vector: refused where they decide alone, left out and said elsewhere."""
    names = ["\U0001f69a", "\U0001f381"]
    rows = [(text, label) for label, some in zip(names, TEXTS.values(), strict=False) for text in some[:4]]
    file = str(write_csv(tmp_path / "unknown.csv", rows))
    given = {**recipe, "data": {"train": file, "validation": None, "test": file}}
    alone = {"task": {"name": "text-classification", "head_start": "label-text"}, "method": "none"}
    with pytest.raises(CompatibilityError, match=r"task\.head_start=label-text: the texts of the labels .* same"):
        tunesmith.train({**given, **alone, "output": str(tmp_path / "alone")})
    with pytest.raises(RecipeError, match=r"prompt\.label_words: .* different labels and are the same tokens"):
        tunesmith.train({**given, "task": "prompt-classification", "output": str(tmp_path / "prompt")})
    run = tunesmith.train({
        **given, "method": {"name": "auto", "folds": 2}, "evaluation": {"baselines": ["zero-shot"], "resamples": 100},
    })  # fmt: skip
    assert set(run.summary["choice"]["left_out"]) == {"zero-shot", "prompt"}
    assert sum("same tokens, so zero-shot" in note for note in run.summary["warnings"]) == 1


def test_ways_that_need_texts_are_left_out_where_labels_differ_in_spelling_only(recipe: Recipe, tmp_path: Path) -> None:
    """Though the tokens differ: the tiny tokenizer knows letter case."""
    rows = [
        (text, label) for label, some in zip(["hello", "Hello", "thanks"], TEXTS.values(), strict=True) for text in some
    ]
    file = str(write_csv(tmp_path / "alike.csv", rows))
    given = {**recipe, "data": {"train": file, "validation": None, "test": file}}
    choice = tunesmith.train({**given, "method": {"name": "auto", "folds": 2}}).summary["choice"]
    assert set(choice["left_out"]) == {"zero-shot", "lora", "prompt"}
    for why in (choice["left_out"]["zero-shot"], choice["left_out"]["lora"]):
        assert "the labels 'Hello' and 'hello' are the same words in another spelling" in why
    assert {row["way"] for row in choice["table"]} == TEXT_WAYS - set(choice["left_out"])


@pytest.mark.parametrize("given", [{"dual_learning": "dual-augmentation"}, {"ensemble": "seeds"}])
def test_what_needs_training_needs_a_method_that_trains(recipe: Recipe, given: dict[str, str]) -> None:
    with pytest.raises(RecipeError, match=f"{next(iter(given))}: method 'auto' may choose one that trains nothing"):
        tunesmith.train({**recipe, **given, "method": "auto"})


def test_ways_without_class_vectors_are_left_out_where_a_loss_needs_them(recipe: Recipe) -> None:
    task = {"name": "text-classification", "losses": ["cross-entropy", "proxy-anchor"]}
    choice = tunesmith.train({**recipe, "task": task, "method": {"name": "auto", "folds": 2}}).summary["choice"]
    assert "proxy-anchor compares with class vectors" in choice["left_out"]["prototypes"]
    assert {row["way"] for row in choice["table"]} >= {"zero-shot", "lora"}


def test_settings_that_the_way_taken_sets_itself_are_named(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    task = {"name": "text-classification", "head_kind": "nearest-neighbours"}
    given = {**recipe, "task": task, "method": {"name": "auto", "folds": 2, "seconds": 1e-6}}
    choice = tunesmith.train(given).summary["choice"]
    assert choice["not_read"] == ["task.head_kind"]
    assert "method auto sets task.head_kind itself; the recipe's own is not read" in capsys.readouterr().err


def test_time_ends_a_way_in_the_midst_of_a_fold(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock on which every step takes a second and nothing else does."""
    steps, step = list[Any](), Loop.step
    monkeypatch.setattr(Loop, "step", lambda self, work: steps.append(work) or step(self, work))
    monkeypatch.setattr(choosing, "time", SimpleNamespace(perf_counter=lambda: float(len(steps))))
    method = {"name": "auto", "folds": 2, "seconds": 3}
    choice = tunesmith.train({**recipe, "method": method, "training": {"batch_size": 4}}).summary["choice"]
    assert "lora was left out: it did not answer all folds within 3 s" in choice["sentence"]
    assert len(steps) == 4, "one step ends after the time"
