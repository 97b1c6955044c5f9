"""Every look at a run's test rows is recorded, and from the second on it is said."""

import json
import logging
import signal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import tunesmith
from tests.conftest import TEXTS, write_csv
from tunesmith.cli.main import app
from tunesmith.training.loop import Loop


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


def struck(recipe: dict[str, Any], number: int, step: int, monkeypatch: pytest.MonkeyPatch, **words: Any) -> None:
    """Train, and get a signal in a step."""
    timed = Loop._timed

    def stepping(self: Loop, *given: Any) -> None:
        if self.steps == step:
            signal.raise_signal(number)
        timed(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_timed", stepping)
        tunesmith.train(recipe, **words)


def test_a_run_that_goes_on_keeps_the_looks_it_has_had(
    recipe: dict[str, Any], data_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    struck(recipe, signal.SIGINT, 3, monkeypatch)
    struck(recipe, signal.SIGINT, 7, monkeypatch, resume=True)
    before = (Path(recipe["output"]) / "openings.jsonl").read_text()
    run = tunesmith.train(recipe, resume=True)
    assert [one["by"] for one in run.openings] == ["train", "train", "train"]
    assert len({one["began"] for one in run.openings}) == 1
    assert (run.folder / "openings.jsonl").read_text().startswith(before)
    assert "note: the test split was opened 3 times" in capsys.readouterr().err
    assert "opened 3 times" in run.report().read_text() and "opened 3 times" in run.opened_again
    shown = CliRunner().invoke(app, ["evaluate", str(run.folder), str(data_folder / "test.csv"), "--json"])
    assert json.loads(shown.stdout)["test_openings"] == 4
    assert "opened 4 times" in run.report().read_text() and "opened 3 times" not in run.report().read_text()


def test_a_run_that_replaces_another_begins_its_own_list(
    recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    struck(recipe, signal.SIGINT, 7, monkeypatch)
    with pytest.raises(SystemExit):
        struck(recipe, signal.SIGTERM, 7, monkeypatch, overwrite=True)
    first = tunesmith.Run.load(recipe["output"]).openings  # of the run that stays until the new one is complete
    run = tunesmith.train(recipe, resume=True)
    assert [one["by"] for one in run.openings] == ["train"] and run.openings[0]["began"] > first[0]["began"]
    assert "was opened" not in capsys.readouterr().err and "was opened" not in run.report().read_text()
    assert len(tunesmith.train(recipe, overwrite=True).openings) == 1


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
