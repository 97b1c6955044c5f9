"""The folder that searches, loops and curves go on in: begun, gone on with, refused; torn and damaged lines."""

from pathlib import Path

import pytest

from tunesmith.core.errors import CheckpointError
from tunesmith.search.journal import Journal
from tunesmith.search.same_facts import check_same


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "work", "walk", "asked.json", "done.jsonl")


def test_lines_come_back_and_a_torn_one_is_dropped(journal: Journal) -> None:
    journal.open({"seed": 1}, False)
    assert journal.read(dict) == []
    for value in (0.1 + 0.2, float("nan")):
        journal.add({"score": value})
    with open(journal.folder / "done.jsonl", "ab") as file:
        file.write(b'{"score": 0.')
    journal.open({"seed": 1}, True)
    first, second = journal.read(lambda values: values["score"])
    assert first == 0.1 + 0.2 and second != second
    journal.add({"score": 3})
    assert journal.read(lambda values: values["score"])[2:] == [3]


def test_what_was_only_asked_for_is_asked_anew(journal: Journal) -> None:
    journal.open({"seed": 1}, False)
    journal.open({"seed": 2}, False)
    journal.open({"seed": 2}, True)
    with pytest.raises(CheckpointError, match="work holds another walk: seed is 1, there it was 2"):
        journal.open({"seed": 1}, True)


def test_what_is_there_is_refused_with_what_to_do(journal: Journal) -> None:
    with pytest.raises(CheckpointError, match=r"holds no walk to go on with \(asked.json is missing\). Leave --resume"):
        journal.open({}, True)
    journal.open({}, False)
    journal.add({})
    with pytest.raises(CheckpointError, match="work exists. Go on with its walk with --resume, or choose another"):
        journal.open({}, False)
    (journal.folder / "asked.json").unlink()
    with pytest.raises(CheckpointError, match="work exists. Remove it first, or choose another output"):
        journal.open({}, False)
    beside = Journal(journal.folder / "done.jsonl", "walk", "asked.json", "done.jsonl")
    with pytest.raises(CheckpointError, match="done.jsonl exists. Remove it first"):
        beside.open({}, False)
    with pytest.raises(CheckpointError, match="cannot be made: Not a directory"):
        Journal(beside.folder / "inner", "walk", "asked.json", "done.jsonl").open({}, False)


@pytest.mark.parametrize("line", ["{", "[]", "{}", "3", '{"score": "high"}'])
def test_a_damaged_line_is_named(journal: Journal, line: str) -> None:
    journal.open({}, False)
    journal.add({"score": 1})
    with open(journal.folder / "done.jsonl", "a") as file:
        file.write(line + "\n")
    with pytest.raises(CheckpointError, match="done.jsonl, line 2 is damaged. Delete that line and those after it"):
        journal.read(lambda values: float(values["score"]))


def test_a_folder_that_is_gone_is_said(journal: Journal) -> None:
    with pytest.raises(CheckpointError, match="cannot write .*done.jsonl: No such file.* go on with --resume"):
        journal.add({})


def test_a_difference_is_followed_to_its_field() -> None:
    start = {"template": "{text} It is " + "long " * 100, "words": {"a": ["x"], "b": ["y"]}}
    for other, said in (
        ({**start, "template": "{text}"}, "start.template is '{text}', there it was '{text} It is long"),
        ({**start, "words": {"a": ["x"], "b": ["z"]}}, "start.words.b is ['z'], there it was ['y']"),
        ({"template": "{text}", "words": {}}, "start is template {text}, words {}, there it was template {text} It"),
    ):
        with pytest.raises(CheckpointError) as found:
            check_same("out holds another search", {"start": start}, {"start": other})
        assert f"out holds another search: {said}" in str(found.value)
