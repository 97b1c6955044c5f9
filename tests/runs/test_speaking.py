"""What a run writes when it is asked oddly: long prompts, long neighbours, half characters, endless talks."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import tunesmith
from tests.conftest import write_jsonl
from tests.runs.test_language_runs import recipe
from tests.runs.test_translation import recipe as pair_recipe
from tunesmith.cli import talk
from tunesmith.cli.main import app
from tunesmith.core.errors import DataError, RecipeError

LONG = "a bird that " * 40


@pytest.fixture
def run(tiny_writer: Path, tmp_path: Path) -> tunesmith.Run:
    rows = [{"question": f"what comes after {n}?", "answer": f"{n + 1} comes then"} for n in range(24)]
    train = write_jsonl(tmp_path / "rows.jsonl", rows)
    data = {"train": str(train), "validation": 0.2, "max_tokens": 64}
    task = {"name": "instruction-tuning", "answered_rows": 2, "samples": 0, "decoding": {"max_new_tokens": 24}}
    return tunesmith.train(recipe(tiny_writer, train, tmp_path / "run", data=data, task=task))


def test_an_answer_does_not_depend_on_the_other_prompts(run: tunesmith.Run) -> None:
    prompts = ["what?", "what comes after 3 and 4 and 5 and then?", "why?"]
    together = run.answers(prompts)
    assert together == [run.answers(prompt)[0] for prompt in prompts]
    short, long, _ = (texts[0] for texts in together)
    assert long.finish in ("room", "end") and short.finish in ("length", "end")


def test_an_answer_says_why_it_ends(run: tunesmith.Run) -> None:
    ((two,),) = run.answers("what?", max_new_tokens=2)
    assert two.finish == "length"
    ((whole,),) = run.answers("what?", max_new_tokens=5000)
    assert whole.finish in ("end", "room")
    word = whole.text.split()[-1] if whole.text.split() else ""
    if word:
        ((cut,),) = run.answers("what?", max_new_tokens=5000, stop=[word])
        assert cut.finish == "stop" and whole.text.startswith(cut.text)
    found = CliRunner().invoke(app, ["generate", str(run.folder), "--prompt", "what?", "--json", "max_new_tokens=2"])
    assert json.loads(found.stdout)["finishes"] == [["length"]]


def test_long_held_out_sources_are_cut_as_in_training(tiny_pair: Path, tmp_path: Path) -> None:
    rows = [{"source": f"one and {n}", "target": "uno"} for n in range(24)]
    long = [*rows[:6], {"source": LONG, "target": "dos"}]
    train, held = write_jsonl(tmp_path / "train.jsonl", rows), write_jsonl(tmp_path / "held.jsonl", long)
    task = {"name": "summarization", "answered_rows": 7, "samples": 1, "decoding": {"max_new_tokens": 8}}
    data = {"train": str(train), "validation": str(held), "max_tokens": 32}
    done = tunesmith.train(pair_recipe(tiny_pair, train, tmp_path / "run", data=data, task=task))
    assert any("1 of 7 prompts" in note and "lose their end" in note for note in done.summary["warnings"])
    assert done.evaluate(str(held))
    with pytest.raises(DataError, match="leave room"):
        done.generate(LONG)


def test_a_decoder_keeps_the_end_of_a_long_question(tiny_writer: Path, tmp_path: Path) -> None:
    rows = [{"question": f"what comes after {n}?", "answer": f"{n + 1}"} for n in range(24)]
    held = [*rows[:4], {"question": LONG + "what now?", "answer": "more"}]
    train, other = write_jsonl(tmp_path / "train.jsonl", rows), write_jsonl(tmp_path / "held.jsonl", held)
    task = {"name": "instruction-tuning", "answered_rows": 5, "samples": 2, "cut": "start",
            "decoding": {"max_new_tokens": 8}}  # fmt: skip
    data = {"train": str(train), "validation": str(other), "max_tokens": 64}
    done = tunesmith.train(recipe(tiny_writer, train, tmp_path / "run", data=data, task=task))
    assert any("lose their start" in note for note in done.summary["warnings"])


def test_beams_of_the_recipe_are_no_error_on_the_command_line(tiny_pair: Path, tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "rows.jsonl", [{"source": f"one {n}", "target": "uno"} for n in range(24)])
    task = {"name": "translation", "answered_rows": 0, "samples": 0, "decoding": {"max_new_tokens": 8, "beams": 2}}
    done = tunesmith.train(pair_recipe(tiny_pair, train, tmp_path / "run", task=task))
    found = CliRunner().invoke(app, ["generate", str(done.folder), "--prompt", "one 3"])
    assert found.exit_code == 0 and found.stdout.strip() == done.generate("one 3")[0][0]


def test_a_long_talk_loses_its_oldest_turns(
    run: tunesmith.Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"what comes after {n}?" for n in range(6)]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join([*lines, LONG, "what?"]) + "\n\n"))
    talk.talk(run, 0, {"max_new_tokens": 8})
    shown = capsys.readouterr()
    assert "its oldest turn was left out" in shown.err
    assert "leave room" in shown.err, "a message that is too long by itself"
    assert len(shown.out.splitlines()) >= 7


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda run: run.generate(3), DataError, "not 3"),
        (lambda run: run.generate(None), DataError, "not None"),
        (lambda run: run.generate([3]), DataError, "not 3"),
        (lambda run: run.generate("half \ud83d"), DataError, "character 6"),
        (lambda run: run.generate("a", seed="x"), RecipeError, "whole number"),
        (lambda run: run.generate("a", samples=0), RecipeError, "at least 1"),
        (lambda run: run.generate("a", samples=2), RecipeError, "temperature above 0"),
        (lambda run: run.generate("a", stop=[""]), RecipeError, "stop"),
        (lambda run: run.generate("a", temperature=True), RecipeError, "true or false"),
        (lambda run: run.chat("x"), DataError, "message 1"),
        (lambda run: run.chat([{"role": "user"}]), DataError, "role and content"),
        (lambda run: run.chat([{"role": "user", "content": 3}]), DataError, "not 3"),
        (lambda run: run.chat([]), DataError, "ends with"),
    ],
)
def test_odd_calls_are_refused_in_words(run: tunesmith.Run, call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call(run)


def test_options_of_the_command_are_not_decoding() -> None:
    with pytest.raises(RecipeError, match="--seed 3"):
        talk.settings(["seed=3"])
