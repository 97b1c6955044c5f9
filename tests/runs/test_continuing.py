"""Incremental tuning: a run goes on from another one, with new labels, and says what it forgot."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tunesmith
from tests.conftest import write_csv
from tunesmith.core.errors import CheckpointError, RecipeError

NEW = ["where is my parcel", "my order never came", "track the parcel please", "has the order shipped yet"]


@pytest.fixture
def first(recipe: dict[str, Any]) -> tunesmith.Run:
    return tunesmith.train({**recipe, "training": {**recipe["training"], "epochs": 4}})


def more(first: tunesmith.Run, folder: Path, rows: list[tuple[str, str]], **keys: Any) -> dict[str, Any]:
    write_csv(folder / "new.csv", rows)
    return {
        "start_from": str(first.folder),
        "data": {"train": str(folder / "new.csv"), "validation": 0.3},
        "training": {"epochs": 2, "batch_size": 8, "learning_rate": 2e-3},
        "evaluation": {"resamples": 100},
        "output": str(folder / "second"),
        **keys,
    }


def rows(label: str) -> list[tuple[str, str]]:
    return [(f"{text} {extra}", label) for text in NEW for extra in "abcde"]


def test_labels_are_kept_and_added(first: tunesmith.Run, data_folder: Path) -> None:
    enough = {"epochs": 6, "batch_size": 8, "learning_rate": 5e-3}  # 0.96 and more for the new label, whatever the seed
    run = tunesmith.train(more(first, data_folder, rows("parcel"), training=enough))
    assert run.labels == sorted([*first.labels, "parcel"])
    assert run.predict("where is my parcel a")[0].label == "parcel"
    found = run.summary["forgetting"]
    assert found["rows"] == 12 and found["data"] == str(data_folder / "test.csv")
    assert found["before"]["accuracy"]["value"] == pytest.approx(first.metrics["test"]["accuracy"]["value"])
    assert found["after"]["accuracy"]["value"] == pytest.approx(run.evaluate(found["data"])["accuracy"].value)
    change = found["after"]["accuracy"]["value"] - found["before"]["accuracy"]["value"]
    assert found["change"]["value"] == pytest.approx(change)
    assert any("on the earlier run's data (12 rows" in warning for warning in run.summary["warnings"])
    assert tunesmith.Run.load(run.folder).predict("hello there friend")[0].label in run.labels


def test_training_begins_where_the_run_ended(first: tunesmith.Run, data_folder: Path) -> None:
    """With a learning rate too small to move anything, delta and old head rows are the run's."""
    still = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-12}
    run = tunesmith.train(more(first, data_folder, rows("parcel"), training=still))
    before, after = (load_file(found.folder / "delta" / "adapter_model.safetensors") for found in (first, run))
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[name], after[name], atol=1e-9) for name in before)
    old, new = (load_file(found.folder / "head.safetensors")["weight"] for found in (first, run))
    places = [run.labels.index(label) for label in first.labels]
    assert torch.allclose(new[places], old, atol=1e-9)
    assert run.summary["forgetting"]["change"]["value"] <= 0.0


def test_the_same_labels_again(first: tunesmith.Run, data_folder: Path) -> None:
    again = [(f"{text} indeed", label) for text, label in (("hello", "greeting"), ("bye now", "parting"))] * 4
    run = tunesmith.train(more(first, data_folder, [(f"{text} {i}", label) for i, (text, label) in enumerate(again)]))
    assert run.labels == first.labels


def test_a_name_alone_stands_for_the_run_s_own_settings(first: tunesmith.Run, data_folder: Path) -> None:
    keys = more(first, data_folder, rows("parcel"), task="text-classification", method=first.recipe.method.name)
    run = tunesmith.train(keys)
    assert (run.recipe.task, run.recipe.method) == (first.recipe.task, first.recipe.method)


def test_what_contradicts_the_run_is_refused(first: tunesmith.Run, data_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"made with method .*'lora'.*Leave method out"):
        tunesmith.train(more(first, data_folder, rows("parcel"), method="bitfit"))
    with pytest.raises(RecipeError, match="candidates start from different deltas"):
        tunesmith.train(more(first, data_folder, rows("parcel"), candidates=[{"seed": 1}]))
    with pytest.raises(CheckpointError, match="is no run folder"):
        tunesmith.train({**more(first, data_folder, rows("parcel")), "start_from": str(tmp_path / "none")})


def test_nothing_to_measure_forgetting_on_is_said(first: tunesmith.Run, data_folder: Path) -> None:
    keys = more(first, data_folder, rows("parcel"))
    (data_folder / "test.csv").unlink()
    with open(data_folder / "train.csv", "a") as file:
        file.write("one row more,greeting\n")  # so that the rows held out then are not known any more
    run = tunesmith.train(keys)
    assert run.summary["forgetting"] == {}
    assert any("what was forgotten is not known" in warning for warning in run.summary["warnings"])


def test_without_a_test_file_the_rows_held_out_are_answered(recipe: dict[str, Any], data_folder: Path) -> None:
    data = {"train": str(data_folder / "train.csv"), "validation": 0.2}
    first = tunesmith.train({**recipe, "data": data})
    run = tunesmith.train(more(first, data_folder, [*rows("parcel"), ("hello there friend a", "greeting")]))
    found = run.summary["forgetting"]
    assert found["held_out"] and found["rows"] == first.summary["data"]["validation"]["rows"]
    for name, value in found["before"].items():
        assert value["value"] == pytest.approx(first.metrics["validation"][name]["value"])
    assert found["change"]["higher_is_better"]


def test_another_prompt_and_changed_files_are_refused(first: tunesmith.Run, data_folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"with prompt.template='\{text\}', the recipe says 'x \{text\}'"):
        tunesmith.train(more(first, data_folder, rows("parcel"), prompt={"template": "x {text}"}))
    (first.folder / "labels.json").write_text("[1, 2]")
    with pytest.raises(CheckpointError, match="labels.json or fingerprint.json was changed"):
        tunesmith.train(more(first, data_folder, rows("parcel")))
    (first.folder / "labels.json").write_text("{}")
    with pytest.raises(CheckpointError, match="labels.json is damaged: it must hold a list"):
        tunesmith.train(more(first, data_folder, rows("parcel")))
