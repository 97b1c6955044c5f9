"""The command line as a user meets it: output, JSON, exit codes."""

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import run_command as tunesmith
from tunesmith.cli import main, show
from tunesmith.core.errors import DataError
from tunesmith.runs.answering import Prediction

pytestmark = pytest.mark.usefixtures("pictures")

Recipe = dict[str, Any]


def process(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tunesmith", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, timeout=300)


@pytest.fixture
def recipe_file(recipe: Recipe, data_folder: Path) -> Path:
    path = data_folder / "recipe.yaml"
    data = {"train": "train.csv", "test": "test.csv", "validation": 0.2}
    short = {**recipe, "data": data, "evaluation": {"resamples": 100}, "output": "runs/first"}
    path.write_text(yaml.safe_dump(short))
    return path


def test_the_whole_way(recipe_file: Path) -> None:
    """The first command in a process of its own."""
    folder = recipe_file.parent
    trained = process("train", str(recipe_file), "training.epochs=3", "--json", cwd=folder)
    assert trained.returncode == 0, trained.stderr
    found = json.loads(trained.stdout)
    for key in (
        "run",
        "metrics",
        "baselines",
        "seconds",
        "peak_memory_bytes",
        "trainable_parameters",
        "examples_per_second",
    ):
        assert found[key], key
    assert set(found["metrics"]["test"]["accuracy"]) == {"value", "low", "high"}
    assert set(found["baselines"]["majority"]["test"]["accuracy"]) == {"value", "low", "high"}
    assert Path(found["run"]) == folder / "runs" / "first"
    assert "train: 48 rows, 3 labels" in trained.stderr and "Traceback" not in trained.stderr

    answered = tunesmith("predict", "runs/first", "hello there friend", "--json", cwd=folder)
    answer = json.loads(answered.stdout)["predictions"][0]
    assert set(answer["probabilities"]) == {"greeting", "parting", "thanks"}
    assert "%" in tunesmith("predict", "runs/first", "test.csv", cwd=folder).stdout
    scored = json.loads(tunesmith("evaluate", "runs/first", "test.csv", "--json", cwd=folder).stdout)
    assert scored["metrics"]["accuracy"]["value"] == pytest.approx(found["metrics"]["test"]["accuracy"]["value"])
    shown = tunesmith("show", "runs/first", cwd=folder).stdout
    assert "linear-probe" in shown and "report.html" in shown

    again = tunesmith("train", str(recipe_file), cwd=folder)
    assert again.returncode == 2 and "--overwrite" in again.stderr and not again.stdout
    empty = tunesmith("predict", "runs/first", "", cwd=folder)
    assert empty.returncode == 2 and "empty" in empty.stderr
    place = tunesmith("predict", "runs/first", "runs", cwd=folder)
    assert place.returncode == 2 and "is a folder" in place.stderr
    missing = tunesmith("predict", "runs/first", "tset.csv", cwd=folder)
    assert missing.returncode == 2 and "Did you mean" in missing.stderr and "test.csv" in missing.stderr


def test_merging_and_converting(recipe_file: Path) -> None:
    folder = recipe_file.parent
    assert tunesmith("train", str(recipe_file), "training.epochs=1", cwd=folder).returncode == 0
    done = tunesmith("merge", "runs/first", "--output", "merged", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["relative_difference"] < 1e-5 and found["argmax_agreement"] == 1.0 and found["rows"] == 12
    again = tunesmith("merge", "runs/first", "--output", "merged", cwd=folder)
    assert again.returncode == 2 and "exists" in again.stderr and not again.stdout
    strict = tunesmith("merge", "runs/first", "--output", "strict", "--tolerance", "1e-14", cwd=folder)
    assert strict.returncode == 2 and "Nothing was written" in strict.stderr and not (folder / "strict").exists()
    assert "restored_tensors" in tunesmith("unmerge", "merged", "--output", "base", cwd=folder).stdout
    assert (folder / "base" / "model.safetensors").is_file()
    shown = tunesmith("convert", "runs/first", "--to", "peft-lora", "--output", "lora", cwd=folder)
    assert "largest_relative_error" in shown.stdout and "relative_errors" not in shown.stdout
    refused = tunesmith("convert", "runs/first", "--to", "torchtune", "--output", "tune", cwd=folder)
    assert refused.returncode == 2 and "Targets that work for it: peft, peft-lora." in refused.stderr
    words = ["merge-deltas", "runs/first", "lora", "--weights", "0.5,0.5", "--output", "sum", "--json"]
    both = tunesmith(*words, cwd=folder)
    assert json.loads(both.stdout)["largest_relative_error"] < 1e-5, both.stderr
    assert (folder / "sum" / "adapter_model.safetensors").is_file()
    wrong = tunesmith("merge-deltas", "runs/first", "lora", "--weights", "a,b", "--output", "x", cwd=folder)
    assert wrong.returncode == 2 and "separated by commas" in wrong.stderr


def test_mistakes_exit_with_2_and_no_traceback(recipe_file: Path) -> None:
    for words in (
        ["train", str(recipe_file), "method.rnk=3"],
        ["train", "nothing.yaml"],
        ["list", "mothods"],
        ["show", "nowhere"],
    ):
        result = tunesmith(*words, cwd=recipe_file.parent)
        assert result.returncode == 2, words
        assert result.stderr.startswith("error: ") and "Traceback" not in result.stderr
    assert tunesmith("train").returncode == 2
    alone = process("list", "mothods", cwd=recipe_file.parent)
    assert alone.returncode == 2 and alone.stderr.startswith("error: ") and not alone.stdout


def test_ctrl_c_before_the_first_step(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tunesmith.cli import main

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tunesmith.api.train", interrupted)
    monkeypatch.setattr(sys, "argv", ["tunesmith", "train", str(recipe_file)])
    with pytest.raises(SystemExit) as left:
        main.run()
    assert left.value.code == 1 and "interrupted; nothing is kept" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["methods", "tasks", "metrics", "models", "baselines", "readers"])
def test_lists(kind: str) -> None:
    rows = json.loads(tunesmith("list", kind, "--json").stdout)[kind]
    assert rows and all(row["name"] and row["summary"] for row in rows)


def test_doctor_and_schema_and_version() -> None:
    facts = json.loads(tunesmith("doctor", "--json").stdout)
    assert facts["ready"] is True and "torch" in facts
    assert "properties" in json.loads(tunesmith("schema").stdout)
    assert tunesmith("--version").stdout.startswith("tunesmith 0.")


def test_warnings_are_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(main, "app", lambda: warnings.warn("two rows were cut.", stacklevel=1))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        main.run()
    assert capsys.readouterr().err == "note: two rows were cut.\n"


def test_an_answer_is_one_line_whatever_its_label() -> None:
    given = Prediction("new\nline", 0.5, {"new\nline": 0.5, 'a "b" {c} 🎉': 0.3})
    assert show.predictions([given]) == 'new\\nline 50.0 %  a "b" {c} 🎉 30.0 %'


def test_a_folder_of_runs_names_the_run_in_it(tmp_path: Path) -> None:
    (tmp_path / "loop" / "best").mkdir(parents=True)
    (tmp_path / "loop" / "best" / "fingerprint.json").write_text("{}")
    result = tunesmith("predict", str(tmp_path / "loop"), "where is it")
    assert result.returncode == 2 and f"Did you mean {tmp_path / 'loop' / 'best'}?" in result.stderr


@pytest.mark.parametrize("text", ["look at https://example.org/", "https://example.org/", "a" * 300, "and / or /"])
def test_texts_that_are_no_folders(text: str) -> None:
    assert not show.is_file(text)


def test_a_name_that_ends_as_one_of_a_folder() -> None:
    with pytest.raises(DataError, match="'nowhere/' is a folder"):
        show.is_file("nowhere/")
