"""Runs compared and calibrated by what they recorded."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

import tunesmith
from tests.conftest import TEXTS, run_command, write_csv, write_jsonl
from tunesmith.core.errors import CheckpointError, CompatibilityError, DataError, RecipeError

NOISY = {"hello", "goodbye", "thank"}  # some of test's labels are wrong, so that no run is right on all rows


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """a, b (another method), c (as a, another seed), d (other test rows), e (other metrics)."""
    folder = tmp_path_factory.mktemp("compared")
    labels = list(TEXTS)
    rows = [(f"{text} {extra}", label) for label, texts in TEXTS.items() for text in texts for extra in "abcde"]
    test = [(f"well {text} {extra}", labels[(labels.index(label) + (text.split()[0] in NOISY)) % 3])
            for label, texts in TEXTS.items() for text in texts for extra in "abc"]  # fmt: skip
    write_csv(folder / "train.csv", rows)
    write_csv(folder / "validation.csv", test[1::2])
    write_csv(folder / "test.csv", test)
    write_csv(folder / "other.csv", [(f"so {text}", label) for text, label in test])
    base = {
        "model": str(tiny_folder),
        "data": {name: str(folder / f"{name}.csv") for name in ("train", "validation", "test")},
        "method": {"name": "lora", "rank": 4},
        "training": {"epochs": 2, "batch_size": 16, "learning_rate": 5e-3},
        "evaluation": {"resamples": 100, "baselines": ["majority"]},
    }
    changes = {"a": [], "b": ["method=head-only"], "c": ["seed=1"], "d": [f"data.test={folder / 'other.csv'}"],
               "e": ["evaluation.metrics=[accuracy,log-loss]"]}  # fmt: skip
    for name, overrides in changes.items():
        tunesmith.train({**base, "output": str(folder / name)}, overrides)
    return folder


@pytest.mark.usefixtures("pictures")
def test_page_markdown_and_json(runs: Path, tmp_path: Path) -> None:
    done = run_command("compare", *(str(runs / name) for name in "abc"), "--output", str(tmp_path / "out"), "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told == json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert told["rows"] == 36 and told["split"] == "test" and len(told["pairs"]) == 3
    values = [one["metrics"]["accuracy"]["value"] for one in told["runs"]]
    assert values == sorted(values, reverse=True)
    assert {one["name"]: one["settings"]["seed"] for one in told["runs"]} == {"a": 0, "b": 0, "c": 1}
    sizes = {one["name"]: one["costs"]["trainable_parameters"] for one in told["runs"]}
    assert sizes["b"] < sizes["a"] and told["one_standard_error"] in sizes
    said = "one standard error" in (tmp_path / "out" / "comparison.md").read_text()
    assert said == (told["one_standard_error"] != told["runs"][0]["name"])  # the best one is no news
    (over,) = told["seeds"]
    assert set(over["runs"]) == {"a", "c"} and over["low"] <= over["value"] <= over["high"]
    entries, change = {one["name"]: one for one in told["runs"]}, told["changes"][0]
    first, second = (entries[change[key]] for key in ("first", "second"))
    gained, lost = (len(change[key]) for key in ("gained", "lost"))
    assert gained - lost == round(36 * (first["metrics"]["accuracy"]["value"] - second["metrics"]["accuracy"]["value"]))
    page = (tmp_path / "out" / "comparison.html").read_text()
    for title in ("Every pair", "Before and after", "Score against cost", "Settings that differ", "Learning curves"):
        assert title in page
    assert page.count("<svg") >= 4 and "http" not in page.replace("http://www.w3.org", "") and "<script" not in page
    assert "well " in page and "| 1 " in (tmp_path / "out" / "comparison.md").read_text()


def test_values_are_those_of_the_runs(runs: Path) -> None:
    found = tunesmith.compare([runs / "a", runs / "b"], split="validation", metric="macro-f1")
    for one in found.entries:
        own = tunesmith.Run.load(one.folder).metrics["validation"]
        assert one.scores["macro-f1"].value == pytest.approx(own["macro-f1"]["value"], abs=1e-6)
        assert one.scores["accuracy"].plain() == own["accuracy"]
    assert found.split == "validation" and found.pairs[0].mcnemar_p is None
    assert found.text(0).startswith("well ")


def test_what_does_not_compare_is_refused(runs: Path, tmp_path: Path) -> None:
    for pair, message in (
        ("ad", "rows of test differ: the texts of row 1 of 36 are not the same"),
        ("ae", "they differ in metrics"),
        ("a", "two or more runs"),
        ("aa", "is given twice"),
    ):
        with pytest.raises((DataError, RecipeError), match=message):
            tunesmith.compare([runs / name for name in pair])
    with pytest.raises(RecipeError, match="unknown split 'train'"):
        tunesmith.compare([runs / "a", runs / "b"], split="train")
    with pytest.raises(CheckpointError, match="exists"):
        tunesmith.compare([runs / "a", runs / "b"], output=runs / "a")
    shutil.copytree(runs / "a", tmp_path / "changed")
    metrics = json.loads((runs / "a" / "metrics.json").read_text())
    metrics["metrics"]["test"]["accuracy"]["value"] += 0.2
    (tmp_path / "changed" / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(CheckpointError, match="one of them was changed"):
        tunesmith.compare([runs / "b", tmp_path / "changed"])
    (tmp_path / "changed" / "predictions.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(CheckpointError, match="is damaged"):
        tunesmith.compare([runs / "b", tmp_path / "changed"])
    done = run_command("compare", str(runs / "a"), str(runs / "d"))
    assert done.returncode == 2 and "cannot be compared" in done.stderr


def test_other_numbers_of_rows_and_places(runs: Path, tmp_path: Path) -> None:
    found = tunesmith.Run.load(runs / "a")
    given = found.recipe.resolved() | {"output": str(tmp_path / "fewer")}
    lines = (runs / "test.csv").read_text().splitlines()
    (tmp_path / "fewer.csv").write_text("\n".join(lines[:-3]) + "\n")
    tunesmith.train(given, [f"data.test={tmp_path / 'fewer.csv'}"])
    with pytest.raises(DataError, match="36 and 33 rows|33 and 36 rows"):
        tunesmith.compare([runs / "a", tmp_path / "fewer"])


def test_texts_are_compared_row_by_row(tiny_writer: Path, tmp_path: Path) -> None:
    rows = [{"question": f"what is {n}?", "answer": f"number {n % 5}"} for n in range(24)]
    base = {
        "task": {"name": "question-answering-generative", "answered_rows": 4, "samples": 1,
                 "decoding": {"max_new_tokens": 3}},
        "model": str(tiny_writer),
        "data": {"train": str(write_jsonl(tmp_path / "rows.jsonl", rows)), "validation": 0.3},
        "training": {"epochs": 1, "batch_size": 8, "learning_rate": 1e-2},
        "evaluation": {"resamples": 100, "baselines": False},
    }  # fmt: skip
    for rank in (2, 4):
        tunesmith.train({**base, "method": {"name": "lora", "rank": rank}, "output": str(tmp_path / f"r{rank}")})
    found = tunesmith.compare([tmp_path / "r2", tmp_path / "r4"], metric="perplexity", output=tmp_path / "out")
    (change,) = found.changes
    assert found.scores[0].value < found.scores[1].value and found.entries[0].settings.keys() == {"method.rank"}
    assert (
        len(change.gained) + len(change.lost) == len(found.where)
        and "better with" in (tmp_path / "out" / "comparison.md").read_text()
    )
    assert tunesmith.compare([tmp_path / "r2", tmp_path / "r4"]).metric == "exact-match"
    with pytest.raises(CompatibilityError, match="has no labels"):
        tunesmith.Run.load(tmp_path / "r2").calibrate()


@pytest.mark.usefixtures("pictures")
def test_calibration_is_said_used_and_taken_back(runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(runs / "a", tmp_path / "run")
    run, texts = tunesmith.Run.load(tmp_path / "run"), ["well hello there friend a", "well bye bye for now"]
    before = run.predict_proba(texts)
    scores = run.evaluate(runs / "test.csv")
    done = run_command("calibrate", str(run.folder), "--coverage", "0.5", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["fitted_on"] == "validation" and 0 < told["threshold"] < 1
    assert told["splits"]["validation"]["answered"]["coverage"]["value"] == pytest.approx(0.5, abs=0.06)
    again = tunesmith.Run.load(run.folder)
    with caplog.at_level(logging.WARNING):
        after = again.predict_proba(texts)
    assert f"temperature {told['temperature']:.3f}" in caplog.text
    assert not np.allclose(after, before) and np.array_equal(after.argmax(1), before.argmax(1))
    answers = again.predict([text for text, _ in zip(["a", *texts], range(3), strict=True)])
    assert all((one.label is None) == (one.probability < told["threshold"]) for one in answers)
    assert again.evaluate(runs / "test.csv")["accuracy"] == scores["accuracy"]
    assert again.evaluate(runs / "test.csv")["log-loss"].value == pytest.approx(
        told["splits"]["test"]["after"]["log-loss"]["value"], abs=1e-5
    )
    said = json.loads(run_command("predict", str(run.folder), texts[0], "--json").stdout)
    assert said["calibration"] == {key: told[key] for key in ("temperature", "threshold")}
    assert (run.folder / "calibration.html").read_text().count("<svg") == 2
    assert "taken back" in run_command("calibrate", str(run.folder), "--remove").stdout
    assert np.array_equal(tunesmith.Run.load(run.folder).predict_proba(texts), before)
    assert "there was no calibration" in run_command("calibrate", str(run.folder), "--remove").stdout


def test_calibration_refuses(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "a", tmp_path / "run")
    run = tunesmith.Run.load(tmp_path / "run")
    with pytest.raises(DataError, match="36 of the 36 rows .* are test rows"):
        run.calibrate(runs / "test.csv")
    with pytest.raises(RecipeError, match="precision: 95 is no share"):
        run.calibrate(precision=95)
    with pytest.raises(RecipeError, match="give one of them"):
        run.calibrate(precision=0.9, coverage=0.9)
    assert not (run.folder / "calibration.json").exists()
    found = run.calibrate(runs / "other.csv")
    assert found["fitted_rows"] == 36 and run.calibration is not None
    (run.folder / "calibration.json").write_text('{"temperature": 0, "threshold": 0}')
    with pytest.raises(CheckpointError, match="temperature above 0"):
        tunesmith.Run.load(run.folder)
    (run.folder / "calibration.json").unlink()
