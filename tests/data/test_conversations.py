"""Conversations from every form that files have, and clear words for what is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import write_csv, write_jsonl
from tunesmith.core.errors import DataError, RecipeError, TunesmithError
from tunesmith.core.registry import components
from tunesmith.data.conversations import Conversation, columns_reader, find_format, read_conversations
from tunesmith.data.formats.messages import pairs
from tunesmith.tasks.dialogue import Dialogue
from tunesmith.tasks.generating import AnswerTask
from tunesmith.tasks.instruction_tuning import InstructionTuning
from tunesmith.tasks.question_answering_generative import GenerativeQuestionAnswering
from tunesmith.tasks.translation import Translation

ASKED = [{"role": "user", "content": "2+2?"}]
DONE = [*ASKED, {"role": "assistant", "content": "4"}]


def read(path: Path, task: AnswerTask, drop: bool = False) -> list[Conversation]:
    reader, columns = columns_reader(str(path), "utf-8", 1000)
    found = read_conversations(reader, task.form(columns, str(path)), task.columns, drop)
    return [Conversation.of(row["text"]) for row in found.rows()]


def test_cells_of_several_types_are_said(tmp_path: Path) -> None:
    rows = [{"instruction": 7 if n == 1 else f"{n}+2?", "output": "4", "source": n} for n in range(3)]
    path = str(write_jsonl(tmp_path / "a.jsonl", rows))
    reader, columns = columns_reader(path, "utf-8", 1000)
    for task in (InstructionTuning(), Translation(source="instruction", target="output")):
        found = read_conversations(reader, task.form(columns, path), task.columns, False)
        assert found.mixed == ["column 'instruction' holds 2 texts and 1 number (line 2)."]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": DONE},
        {"messages": json.dumps(DONE)},
        {"messages": [*DONE, {"role": "user", "content": "thanks"}]},  # what follows the last answer is not read
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "2+"}, {"type": "text", "text": "2?"}]},
                DONE[1],
            ]
        },
        {"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]},
        {"instruction": "2+2?", "input": "", "output": "4"},
        {"prompt": "2+2?", "completion": "4"},
        {"prompt": ASKED, "response": "4"},
        {"question": "2+2?", "answer": "4"},
        {"prompt": "2+2?", "chosen": "4", "rejected": "5"},
        {"chosen": DONE, "rejected": ASKED},
        {"prompt": "2+2?", "chosen": DONE, "rejected": ASKED},
        {"prompt": "2+2?", "chosen": [DONE[1]], "rejected": "5"},
    ],
    ids=lambda row: "-".join(row),
)
def test_every_form_gives_the_same_conversation(tmp_path: Path, row: dict[str, Any]) -> None:
    (found,) = read(write_jsonl(tmp_path / "rows.jsonl", [row]), InstructionTuning())
    assert found.messages == DONE


def test_an_answer_that_brings_its_system_text_keeps_the_prompt(tmp_path: Path) -> None:
    chosen = [{"role": "system", "content": "Be brief."}, DONE[1]]
    row = {"prompt": "2+2?", "chosen": chosen, "rejected": "5"}
    (found,) = read(write_jsonl(tmp_path / "rows.jsonl", [row]), InstructionTuning())
    assert found.messages == [chosen[0], *DONE]


@pytest.mark.parametrize("text", [f"[{'1' * 5000}]", "[" * 100_000], ids=["digits", "deep"])
def test_a_list_of_messages_that_python_refuses_to_read(text: str) -> None:
    with pytest.raises(DataError, match="a number of too many digits, or lists or objects too deep"):
        pairs(text, ("role", "content"))


def test_inputs_contexts_systems_and_several_answers(tmp_path: Path) -> None:
    (found,) = read(
        write_jsonl(tmp_path / "a.jsonl", [{"instruction": "Sum up.", "input": "A text.", "output": "Text.",
                                            "system": "Be brief."}]),
        InstructionTuning(),
    )  # fmt: skip
    assert [message["content"] for message in found.messages] == ["Be brief.", "Sum up.\n\nA text.", "Text."]
    (found,) = read(
        write_jsonl(
            tmp_path / "b.jsonl", [{"context": "Ann is 7.", "question": "How old?", "answers": ["7", "seven"]}]
        ),
        GenerativeQuestionAnswering(),
    )
    assert found.messages[0]["content"] == "Ann is 7.\n\nQuestion: How old?"
    assert (found.answer, found.references) == ("7", ["seven"])
    squad = {"question": "How old?", "answers": {"text": ["7", "7", "seven"], "answer_start": [0, 0, 0]}}
    (found,) = read(write_jsonl(tmp_path / "c.jsonl", [squad]), GenerativeQuestionAnswering())
    assert (found.answer, found.references) == ("7", ["seven"])


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [("2+2?", "4")], ("question", "reply"))
    assert read(path, InstructionTuning(columns={"answer": "reply"}))[0].messages == DONE
    two = write_csv(tmp_path / "b.csv", [("你好", "hello")], ("zh", "en"))
    (found,) = read(two, Translation(source="zh", target="en", instruction="Translate."))
    assert [message["content"] for message in found.messages] == ["Translate.\n你好", "hello"]


@pytest.mark.parametrize(
    ("row", "task", "match"),
    [
        ({"messages": [{"role": "robot", "content": "x"}]}, InstructionTuning(), "line 1: unknown role 'robot'"),
        ({"messages": ASKED}, InstructionTuning(), "no message is an answer"),
        ({"messages": [{"role": "user"}]}, Dialogue(), "a message lacks 'content'"),
        ({"messages": "hello"}, Dialogue(), "not JSON"),
        ({"messages": [{"role": "user", "content": 3}]}, Dialogue(), "holds a int"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, Dialogue(), "holds a list"),
        ({"prompt": "2+2?", "completion": " "}, InstructionTuning(), r"cell: line 1 \(question or answer\)"),
        ({"question": "x", "answers": []}, InstructionTuning(), "1 of 1 rows have an empty"),
        ({"question": " ", "context": "y", "answer": "z"}, InstructionTuning(), "1 of 1 rows have an empty"),
        ({"question": "x", "answer": None}, InstructionTuning(), "1 of 1 rows have an empty"),
        ({"instruction": "", "output": "z"}, InstructionTuning(), "1 of 1 rows have an empty"),
        ({"source": "", "target": "z"}, Translation(instruction="Translate:"), "1 of 1 rows have an empty"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, GenerativeQuestionAnswering(), "holds preference rows"),
        ({"texte": "a"}, InstructionTuning(), "this task reads: messages"),
        ({"prompt": "a" * 2000, "completion": "b"}, InstructionTuning(), "2,000 characters"),
    ],
)  # fmt: skip
def test_rows_that_are_no_conversation(tmp_path: Path, row: dict[str, Any], task: AnswerTask, match: str) -> None:
    with pytest.raises(DataError, match=match):
        read(write_jsonl(tmp_path / "rows.jsonl", [row]), task)


def test_columns_that_do_not_exist(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [("a", "b")], ("zh", "en"))
    with pytest.raises(RecipeError, match="task.target: unknown column 'eng'; did you mean 'en'"):
        read(path, Translation(source="zh", target="eng"))
    with pytest.raises(TunesmithError, match="task.columns.answer: unknown column 'repl'"):
        read(path, InstructionTuning(columns={"answer": "repl"}))


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize(
    ("first", "second", "lacking"),
    [
        ({"instruction": "2+2?", "output": "4"}, {"instruction": "2+3?"}, "output"),
        ({"prompt": "2+2?", "completion": "4"}, {"prompt": "2+3?"}, "response"),
        ({"question": "2+2?", "answer": "4"}, {"answer": "5"}, "question"),
        ({"prompt": "2+2?", "chosen": "4", "rejected": "5"}, {"prompt": "2+3?"}, "chosen"),
        ({"messages": DONE}, {"text": "2+3?"}, "messages"),
        (
            {"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]},
            {"system": "x"},
            "conversations",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else str(value),
)
def test_a_later_row_without_a_column_is_named(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], lacking: str, drop: bool
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [first, second])
    with pytest.raises(DataError, match=rf"rows\.jsonl, line 2: the row has no column '{lacking}'; it has"):
        read(path, InstructionTuning(), drop)


def test_settings_of_columns_that_would_not_be_read(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"instruction": "2+2?", "output": "4"}])
    with pytest.raises(RecipeError, match="task.columns: unknown name 'answr'; did you mean 'answer'"):
        read(path, InstructionTuning(columns={"answr": "output"}))
    with pytest.raises(RecipeError, match="task.columns.answer: the rows of .* are read as alpaca"):
        read(path, InstructionTuning(columns={"answer": "output"}))
    with pytest.raises(RecipeError, match="leave it out"):
        read(path, Translation(source="instruction", target="output", columns={"source": "output"}))
    with pytest.raises(RecipeError, match=r"task.source: unknown column 'zh'.* \(first row of .*rows.jsonl\)"):
        read(path, Translation(source="zh", target="output"))


def test_empty_answers_are_dropped_when_told_so(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "completion": ""}, {"prompt": "2+2?", "completion": "4"}]
    assert len(read(write_jsonl(tmp_path / "rows.jsonl", rows), InstructionTuning(), drop=True)) == 1


def test_a_json_file_may_hold_lines(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.json", [{"prompt": "2+2?", "completion": "4"}] * 2)
    assert len(read(path, InstructionTuning())) == 2


@pytest.mark.parametrize(
    ("row", "question", "answer"),
    [
        ({"instruction": "Even?", "input": 0, "output": 0}, "Even?\n\n0", "0"),
        ({"instruction": "Even?", "input": float("nan"), "output": "yes"}, "Even?", "yes"),
        ({"question": 0, "answer": 1.5}, "0", "1.5"),
        ({"question": "Why?", "answer": "so", "context": float("nan")}, "Why?", "so"),
        ({"prompt": 0, "completion": 7}, "0", "7"),
        ({"prompt": 0, "chosen": "a", "rejected": "b"}, "0", "a"),
    ],
)
def test_numbers_are_read_as_written_and_no_number_is_nothing(
    tmp_path: Path, row: dict[str, Any], question: str, answer: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row) + "\n")
    reader, columns = columns_reader(str(path), "utf-8", 1000)
    form = find_format(columns, list(components("formats")), str(path))
    found = [Conversation.of(one["text"]) for one in read_conversations(reader, form, {}, False).rows()]
    assert [one["content"] for one in found[0].messages] == [question, answer]


@pytest.mark.parametrize("row", [{"question": "Why?", "answer": float("nan")}, {"prompt": "Why?", "completion": None}])
def test_no_answer_may_be_dropped(tmp_path: Path, row: dict[str, Any]) -> None:
    path = tmp_path / "a.jsonl"
    full = {key: "x" for key in row}
    path.write_text("".join(json.dumps(one) + "\n" for one in (row, full)))
    reader, columns = columns_reader(str(path), "utf-8", 1000)
    form = find_format(columns, list(components("formats")), str(path))
    assert len(read_conversations(reader, form, {}, True)) == 1
