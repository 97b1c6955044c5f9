"""Every look at a run's test rows is recorded, and from the second on it is said."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import tunesmith
from tests.conftest import TEXTS, write_csv
from tunesmith.cli.main import app


def test_looks_at_test_rows_are_recorded_and_said(
    recipe: dict[str, Any], data_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tunesmith.train(recipe)
    (first,) = run.openings
    assert (first["by"], first["rows"], first["test_rows"]) == ("train", 12, 12)
    assert first["scores"]["accuracy"] == run.metrics["test"]["accuracy"]["value"]
    assert not run.opened_again and "optimistic" not in run.report().read_text()

    others = write_csv(data_folder / "others.csv", [("you are so nice", "thanks"), ("bye then", "parting")])
    run.evaluate(others)
    assert len(run.openings) == 1  # none of them is in the test split

    moved = [(f"well {text}", label) for label, texts in TEXTS.items() for text in texts[:2]]
    some = write_csv(data_folder / "some.csv", [*moved, ("bye then", "parting")])
    with caplog.at_level(logging.WARNING, "tunesmith"):
        scores = run.evaluate(some)
    second = run.openings[1]
    assert (second["by"], second["rows"], second["test_rows"]) == ("evaluate", 7, 6)
    assert second["scores"]["accuracy"] == scores["accuracy"].value and Path(second["file"]) == some
    assert "the test split was opened 2 times" in caplog.text
    assert "opened 2 times" in run.report().read_text() and "opened 2 times" in run.opened_again

    run.compare(run, data_folder / "test.csv")
    assert [one["by"] for one in run.openings[2:]] == ["compare", "compare"]
    report = run.report().read_text()
    assert "opened 4 times" in report and "opened 2 times" not in report

    shown = CliRunner().invoke(app, ["evaluate", str(run.folder), str(some), "--json"])
    assert json.loads(shown.stdout)["test_openings"] == 5
    assert "opened 5 times" in CliRunner().invoke(app, ["show", str(run.folder)]).stdout


def test_a_cut_line_counts_and_what_follows_is_whole(recipe: dict[str, Any], data_folder: Path) -> None:
    run = tunesmith.train(recipe)
    with open(run.folder / "openings.jsonl", "a") as file:
        file.write('{"time": "2026-')
    run.evaluate(data_folder / "test.csv")
    assert [one.get("by") for one in run.openings] == ["train", None, "evaluate"]


def test_without_a_test_split_nothing_is_recorded(recipe: dict[str, Any], data_folder: Path) -> None:
    test = recipe["data"].pop("test")
    run = tunesmith.train(recipe)
    run.evaluate(test)
    assert run.openings == []


def test_an_opening_that_cannot_be_recorded_is_said(
    recipe: dict[str, Any], data_folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tunesmith.train(recipe)
    monkeypatch.setattr("os.open", lambda *_, **__: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
    with caplog.at_level(logging.WARNING, "tunesmith"):
        run.evaluate(data_folder / "test.csv")
    assert "could not be recorded" in caplog.text and "Read-only" in caplog.text
