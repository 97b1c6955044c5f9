"""Files as other programs write them: byte-order marks, foreign line ends, half characters, missing columns."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import write_jsonl
from tests.runs.test_language_runs import recipe
from tunesmith.core.errors import DataError
from tunesmith.data.conversations import columns_reader, find_format, read_conversations
from tunesmith.data.documents import WholeFile
from tunesmith.data.examples import Columns, find_reader, from_texts, read_examples
from tunesmith.data.formats.alpaca import Alpaca
from tunesmith.data.tokens import TokenRows, unknown_tokens
from tunesmith.recipe.loading import load_recipe
from tunesmith.runs.opening import open_family

pytestmark = pytest.mark.usefixtures("pictures")

MARK = b"\xef\xbb\xbf"


def rows_of(path: Path, encoding: str = "utf-8") -> list[dict[str, Any]]:
    return [values for _, values in find_reader(str(path), encoding).rows()]


@pytest.mark.parametrize(
    ("name", "text", "first"),
    [
        ("a.jsonl", '{"text": "one"}\n', {"text": "one"}),
        ("a.json", '[{"text": "one"}]', {"text": "one"}),
        ("a.csv", "text,label\none,x\n", {"text": "one", "label": "x"}),
        ("a.txt", "one\ntwo\n", {"text": "one"}),
    ],
)
def test_a_byte_order_mark_is_no_text(tmp_path: Path, name: str, text: str, first: dict[str, str]) -> None:
    path = tmp_path / name
    path.write_bytes(MARK + text.encode())
    assert rows_of(path)[0] == first
    path.write_text(text)
    assert rows_of(path)[0] == first


def test_rows_with_characters_that_part_cells_are_told_apart(tmp_path: Path) -> None:
    """The hash of ordinary cells stays, or no run made before could go on."""

    def hashed(rows: list[dict[str, Any]]) -> str:
        path = write_jsonl(tmp_path / "a.jsonl", rows)
        return read_examples(find_reader(path), Columns("text", "label")).content_hash

    assert hashed([{"text": "å", "label": "b"}]) == hashlib.sha256("å\x1fb\x1e".encode()).hexdigest()
    rows = [
        [{"text": "a\x1fb", "label": "c"}],
        [{"text": "a", "label": "b\x1fc"}],
        [{"text": "a", "label": "b\x1ec\x1fd"}],
        [{"text": "a", "label": "b"}, {"text": "c", "label": "d"}],
    ]
    assert len({hashed(one) for one in rows}) == len(rows)


def test_one_long_text_has_one_kind_of_line_end(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(MARK + b"one\r\ntwo\r\n\r\nthree\rfour\n")
    assert "".join(values["text"] for _, values in WholeFile(str(path)).rows()) == "one\ntwo\n\nthree\nfour\n"


@pytest.mark.parametrize(("size", "validation", "test"), [(9200, 0.1, 0.2), (9200, 0.3, 0.3), (3500, 0.2, 0.2)])
def test_shares_of_one_text_are_what_was_asked_for(
    tiny_writer: Path, tmp_path: Path, size: int, validation: float, test: float
) -> None:
    path = tmp_path / "prose.txt"
    lines = [f"line {n} tells of {n * 7 % 13} birds\n" for n in range(1000)]
    path.write_text("".join(lines)[:size])
    data = {"train": str(path), "validation": validation, "test": test, "max_tokens": 32}
    given = recipe(tiny_writer, path, tmp_path / "run", data=data, task={"name": "text-generation"})
    splits = open_family(load_recipe(given), None).corpus.splits
    sizes = {name: int(split.tokens.lengths.sum()) for name, split in splits.items()}
    for name, share in (("validation", validation), ("test", test)):
        assert sizes[name] / sum(sizes.values()) == pytest.approx(share, abs=0.04)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"text": "half \\ud83d"}', "line 2: .* half of a character"),
        ('{"text": ' + "[" * 100_000 + "]" * 100_000 + "}", "line 2: .* too deep"),
    ],
    ids=["half a character", "deep"],
)
def test_odd_lines_are_named(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n' + line + "\n")
    with pytest.raises(DataError, match=words):
        rows_of(path)


def test_utf_16_without_a_mark_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("one two".encode("utf-16-be"))
    with pytest.raises(DataError, match=r"a\.txt is not utf-16.*utf-16-le"):
        rows_of(path, "utf-16")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"instruction": "say"}, "line 2: the row has no column 'output'"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "line 1: the conversation begins with an answer"),
    ],
)
def test_conversations_name_the_line(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    rows = [{"instruction": "say", "output": "a"}, row] if "instruction" in row else [row]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    reader, columns = columns_reader(str(path), "utf-8", 10_000)
    form = Alpaca() if "instruction" in row else find_format(columns, ("messages",), str(path))
    with pytest.raises(DataError, match=words):
        read_conversations(reader, form, {}, False)


def test_unknown_tokens_are_counted() -> None:
    class Tokenizer:
        unk_token, unk_token_id = "<unk>", 0

    ids = np.array([0, 5, 0, 7], np.int32)
    rows = TokenRows(ids, np.array([0, 4]), np.array([4]))
    assert "train: 2 of 4 tokens (50 %)" in unknown_tokens(rows, Tokenizer(), "train")[0]
    assert not unknown_tokens(TokenRows(ids + 1, np.array([0, 4]), np.array([4])), Tokenizer(), "train")


def test_a_run_says_what_its_tokenizer_does_not_know(tmp_path: Path) -> None:
    import tunesmith
    from tests.runs.test_pretraining import LINES
    from tests.runs.test_pretraining import recipe as pretrain

    prose, other = tmp_path / "prose.txt", tmp_path / "other.txt"
    prose.write_text("".join(LINES * 60))
    other.write_text("鸟儿在唱歌\n" * 200)
    run = tunesmith.train(pretrain(prose, tmp_path / "run"))
    assert not any("unknown to the tokenizer" in note for note in run.summary["warnings"])
    with pytest.warns(UserWarning, match="unknown to the tokenizer"):
        run.evaluate(str(other))


@pytest.mark.parametrize(("text", "said"), [("a\udcff", "character 2 .* is half of one"), (5, "a text, not 5")])
def test_what_is_no_text_is_refused_in_words(text: Any, said: str) -> None:
    with pytest.raises(DataError, match=f"text 2 of 2: {said}"):
        from_texts(["fine", text], Columns("text", None))
