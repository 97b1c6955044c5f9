"""What a run writes when it is asked oddly: long prompts, long neighbours, half characters, endless talks."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import tunesmith
from tests.conftest import real, write_jsonl
from tests.runs.test_language_runs import recipe
from tests.runs.test_translation import recipe as pair_recipe
from tunesmith.cli import talk
from tunesmith.cli.main import app
from tunesmith.core.errors import CheckpointError, CompatibilityError, DataError, RecipeError
from tunesmith.recipe.loading import load_recipe
from tunesmith.tasks.decoding import Answer

LONG = "a bird that " * 40


def wide(done: tunesmith.Run, held: Path, tmp_path: Path) -> dict[str, Any]:
    """Go on with a recipe that asks for answers longer than the room."""
    task = {**done.recipe.task.describe(), "decoding": {"max_new_tokens": 100}}
    given = {**done.recipe.resolved(), "task": task, "output": str(tmp_path / "wide")}
    return tunesmith.train(given).summary


@pytest.fixture(scope="module")
def run(tiny_writer: Path, tmp_path_factory: pytest.TempPathFactory) -> tunesmith.Run:
    tmp_path = tmp_path_factory.mktemp("speaking")
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


def test_long_held_out_sources_are_cut_as_in_training(
    tiny_pair: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"source": f"one and {n}", "target": "uno"} for n in range(24)]
    long = [*rows[:6], {"source": LONG, "target": "dos"}]
    train, held = write_jsonl(tmp_path / "train.jsonl", rows), write_jsonl(tmp_path / "held.jsonl", long)
    task = {"name": "summarization", "answered_rows": 7, "samples": 1, "decoding": {"max_new_tokens": 8}}
    data = {"train": str(train), "validation": str(held), "max_tokens": 32}
    done = tunesmith.train(pair_recipe(tiny_pair, train, tmp_path / "run", data=data, task=task))
    assert any("1 of 7 prompts" in note and "lose their end" in note for note in done.summary["warnings"])
    assert any("6 of 7 prompts leave less room" in note for note in wide(done, held, tmp_path)["warnings"])
    with caplog.at_level("WARNING"):
        assert done.evaluate(str(held))
    assert "held.jsonl: 1 of 7 rows are longer than 32 tokens and lost their end" in caplog.text
    assert "held.jsonl: 1 of 7 prompts to be answered leave no room" in caplog.text
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
    assert "oldest turns left out: 1" in shown.err
    assert "leave room" in shown.err, "a message that is too long by itself"
    assert len(shown.out.splitlines()) >= 7


def test_what_cannot_be_answered_leaves_the_talk_as_it_was(
    run: tunesmith.Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    heard: list[int] = []
    stream = tunesmith.Run.stream
    monkeypatch.setattr(
        tunesmith.Run, "stream", lambda self, said, **how: heard.append(len(said)) or stream(self, said, **how)
    )
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(["what?", "half \ud83d", LONG, "why?"]) + "\n\n"))
    talk.talk(run, 0, {"max_new_tokens": 1})
    assert heard == [1, 1, 3], "the refused messages are not part of it, what was said before is"
    assert "half of one" in capsys.readouterr().err


def test_the_newest_turns_leave_room_for_an_answer(run: tunesmith.Run) -> None:
    turn = [{"role": "user", "content": "what?"}, {"role": "assistant", "content": "this and that."}]
    system = {"role": "system", "content": "be brief"}
    long = [system, *turn * 8, {"role": "user", "content": "why?"}]
    kept = run.fitting(long, max_new_tokens=20)
    assert kept[0] == system and kept[-1] == long[-1] and kept[1]["role"] == "user" and len(kept) < len(long)
    ((answer,),) = run.answers("what?", max_new_tokens=20)
    assert len(run.fitting(long, max_new_tokens=1)) > len(kept)
    assert run.fitting(turn[:1]) == turn[:1] and answer.finish


def test_answers_that_fill_the_room_are_counted(
    run: tunesmith.Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (texts,) = run.answers("what?", max_new_tokens=5000)
    assert ("1 of 1 answers end before max_new_tokens" in caplog.text) == (texts[0].finish == "room")
    monkeypatch.setattr("tunesmith.tasks.decoding.Writer._ended", lambda *rest: Answer("x", "room"))
    for ask in (run.generate, run.chat, lambda said, **how: list(run.stream(said, **how))):
        caplog.clear()
        ask([{"role": "user", "content": "what?"}] if ask == run.chat else "what?", max_new_tokens=2)
        assert "1 of 1 answers end before max_new_tokens: prompt and answer fill the 64 tokens" in caplog.text


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
        (lambda run: run.chat([{"role": "system", "content": "x"}]), DataError, "not with system"),
        (lambda run: run.evaluate(None), DataError, "data is given as a path, not as None"),
        (lambda run: run.compare("x", "rows.jsonl"), DataError, "compared with a run"),
        (lambda run: run.generate("a", top_p=0.5), RecipeError, "  top_p=0.5 is for sampling"),
        (lambda run: tunesmith.train(None), RecipeError, "a recipe is a YAML file or a mapping"),
        (lambda run: tunesmith.train([1]), RecipeError, "not \\[1\\]"),
        (lambda run: tunesmith.Run.load(None), CheckpointError, "by its folder, not by None"),
        (lambda run: run.chat(None), DataError, "not None"),
        (lambda run: list(run.stream(3)), DataError, "not 3"),
        (lambda run: run.generate("a", seed=2**70), RecipeError, "from 0 to"),
        (lambda run: run.choose(3, ["a", "b"]), DataError, "the prompt: a text, not 3"),
        (lambda run: run.choose("a", None), DataError, "choices: a list of texts"),
        (lambda run: run.choose("a", ["b", 2]), DataError, "choice 2: a text, not 2"),
    ],
)
def test_odd_calls_are_refused_in_words(run: tunesmith.Run, call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call(run)


def test_a_score_that_is_no_finite_number_is_shown(run: tunesmith.Run, tmp_path: Path) -> None:
    folder = shutil.copytree(run.folder, tmp_path / "copy")
    path = folder / "metrics.json"
    facts = json.loads(path.read_text())
    facts["metrics"]["validation"]["perplexity"] = {"value": None, "low": None, "high": None}
    facts["gain"][0] |= {"metric": "perplexity", "value": None, "low": None, "high": None}
    path.write_text(json.dumps(facts))
    found = CliRunner().invoke(app, ["show", str(folder)])
    assert found.exit_code == 0 and "the difference to the best baseline is no finite number" in found.stdout


def test_options_of_the_command_are_not_decoding() -> None:
    with pytest.raises(RecipeError, match="--seed 3"):
        talk.settings(["seed=3"])
    with pytest.raises(RecipeError, match="'prompts=x' is no setting of task.decoding"):
        talk.settings(["prompts=x"])
    assert talk.settings(["stop=[", "top_k=3"]) == {"stop": "[", "top_k": 3}


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"name": "translation", "source": "a", "target": "a"}, "learn to copy"),
        ({"name": "text-generation", "masked_share": 0.3}, "nothing is hidden"),
        ({"name": "translation", "answered_rows": True}, "true or false"),
        ({"name": "translation", "source": "a", "target": "a"}, "  task: source and target are both 'a'"),
        ({"name": "dialogue", "decoding": {"top_k": 3}}, "task.decoding: top_k=3 is for sampling"),
    ],
)
def test_settings_that_do_nothing_are_refused(task: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        load_recipe({"task": task, "model": "minilm", "data": {"train": "x.jsonl"}, "output": "x"})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": {"train": "x.jsonl", "text": "body"}}, "data.text: the task 'dialogue' does not read it"),
        ({"data": {"train": "x.jsonl", "label": "kind"}}, "data.label: the task 'dialogue' does not read it"),
        ({"training": {"head_learning_rate": 1e-3}}, "head_learning_rate: the task 'dialogue' has no head of its own"),
        ({"task": "text-generation", "data": {"train": "x.txt", "text": "a"}}, "data.text: x.txt is plain text"),
        ({"task": {"name": "text-generation", "documents": "line"}}, "task.documents: it is for files of plain text"),
        ({"data": {"train": "x.jsonl", "columns": ["a"]}}, "data.columns: it is for files without a header"),
        ({"task": {"name": "dialogue", "answered_rows": 0}, "evaluation": {"metrics": ["chrf"]}}, "chrf need answers"),
    ],
)
def test_keys_that_nothing_would_read_are_refused(changes: dict[str, Any], words: str) -> None:
    base = {"task": "dialogue", "model": "minilm", "data": {"train": "x.jsonl"}, "output": "x"}
    with pytest.raises(RecipeError, match=words):
        load_recipe({**base, **changes})


def test_a_method_without_parameters_has_nothing_to_train(tiny_writer: Path, tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "rows.jsonl", [{"question": f"{n}?", "answer": f"{n}"} for n in range(8)])
    with pytest.raises(CompatibilityError, match="nothing to train"):
        tunesmith.train(recipe(tiny_writer, train, tmp_path / "run", method="head-only"))
    assert not (tmp_path / "run").exists()


def test_a_drawn_answer_does_not_depend_on_the_other_prompts(run: tunesmith.Run) -> None:
    """Each prompt has random numbers of its own; the same prompt again gets others."""
    prompts, drawn = ["what?", "why is that so?", "who?"], {"temperature": 1.5, "top_k": 40, "seed": 3}
    together = run.generate(prompts, **drawn)
    assert together == [run.generate(prompt, **drawn)[0] for prompt in prompts]
    assert together == run.generate(prompts[::-1], **drawn)[::-1]
    (several,) = run.generate("what?", samples=4, **drawn)
    assert several[0] == together[0][0] and len(set(several)) > 1
    assert "".join(run.stream("what?", **drawn)) == several[0]
    beams = {**drawn, "beams": 2}
    assert run.generate(prompts, **beams) == [run.generate(prompt, **beams)[0] for prompt in prompts]


def test_a_stream_is_the_answer(run: tunesmith.Run) -> None:
    for prompt in ("what?", "what comes after 3?"):
        assert "".join(run.stream(prompt)) == run.generate(prompt)[0][0]


def test_inspect_reads_no_weights(tiny_writer: Path, tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "rows.jsonl", [{"question": f"{n}?", "answer": f"{n}"} for n in range(8)])
    model = shutil.copytree(tiny_writer, tmp_path / "model")
    given = recipe(model, train, tmp_path / "run", data={"train": str(train), "validation": 0.25})
    before = tunesmith.inspect(given)
    (model / "model.safetensors").write_bytes(b"none")
    assert tunesmith.inspect(given) == before
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        tunesmith.train(given)


def test_inspect_shows_characters_whole(tiny_writer: Path, tmp_path: Path) -> None:
    rows = [{"question": f"说什么 {n}？", "answer": f"你好😀{n}"} for n in range(8)]
    train = write_jsonl(tmp_path / "rows.jsonl", rows)
    data = {"train": str(train), "validation": 0.25}
    found = tunesmith.inspect(recipe(tiny_writer, train, tmp_path / "run", data=data))
    text = "".join(word for word, _ in found["rows"][0]["pieces"])
    assert "\ufffd" not in text and "你好😀" in text and "说什么" in text


def test_inspect_shows_characters_of_several_tokens_once(tmp_path: Path) -> None:
    """Of a SentencePiece tokenizer too, which spells an unknown character as bytes."""
    rows = [{"question": f"说什么 {n}？", "answer": f"你好😀 a bird{n}"} for n in range(8)]
    train = write_jsonl(tmp_path / "rows.jsonl", rows)
    data = {"train": str(train), "validation": 0.25}
    found = tunesmith.inspect(recipe(real("TUNESMITH_MODELS") / "stories260K", train, tmp_path / "run", data=data))
    for row in found["rows"]:
        text = "".join(word for word, _ in row["pieces"])
        assert "\ufffd" not in text and text.count("你好😀") == 1 and text.count("说什么") == 1
        assert "a bird" in text and text.count("好") == 1
