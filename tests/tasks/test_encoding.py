"""Which tokens are learned: exactly the answers, with the token that ends them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunesmith.data.conversations import Conversation
from tunesmith.models.loading import load_tokenizer, locate
from tunesmith.prompts.chat import Chat
from tunesmith.tasks.encoding import _marks, encode_conversations, encode_documents

TURNS = [
    {"role": "user", "content": "hello there"},
    {"role": "assistant", "content": "hi 😀 你好"},
    {"role": "user", "content": "bye"},
    {"role": "assistant", "content": "see you"},
]


@pytest.fixture(scope="module")
def tokenizer(tiny_writer: Path) -> Any:
    return load_tokenizer(locate(str(tiny_writer)))


def learned(tokenizer: Any, name: str, max_tokens: int = 999, cut: str = "end", learn: str = "all") -> Any:
    return encode_conversations([Conversation(TURNS, [])], Chat(tokenizer, name), max_tokens, cut, learn)


@pytest.mark.parametrize(
    ("name", "text"),
    [("plain", " hi 😀 你好</s> see you</s>"), ("chatml", "hi 😀 你好<|im_end|>see you<|im_end|>")],
)
def test_exactly_the_answers_are_learned(tokenizer: Any, name: str, text: str) -> None:
    found = learned(tokenizer, name)
    rows = found.rows
    assert tokenizer.decode(rows[0][rows.learned(0)]) == text
    assert found.merged == 0 and rows.truncated == 0 and rows.targets.tolist() == [rows.marks.sum()]
    assert rows.characters.tolist() == [len(text)]


def test_only_the_last_answer_may_be_learned(tokenizer: Any) -> None:
    rows = learned(tokenizer, "plain", learn="last").rows
    assert tokenizer.decode(rows[0][rows.learned(0)]) == " see you</s>"


def test_the_prompt_alone_gives_the_tokens_that_generation_starts_from(tokenizer: Any) -> None:
    chat = Chat(tokenizer, "chatml")
    rows = learned(tokenizer, "chatml", learn="last").rows
    first = int(rows.learned(0).argmax())
    prompt = tokenizer(chat.render(TURNS[:-1], True), add_special_tokens=False)["input_ids"]
    assert rows[0][:first].tolist() == prompt


def test_long_rows_lose_their_end_or_their_start(tokenizer: Any) -> None:
    whole = learned(tokenizer, "plain").rows[0].tolist()
    end = learned(tokenizer, "plain", 40).rows
    assert end[0].tolist() == whole[:40] and end.truncated == 1 and end.full_lengths.tolist() == [len(whole)]
    start = learned(tokenizer, "plain", 40, cut="start").rows
    assert start[0].tolist() == [whole[0], *whole[-39:]]  # the begin token stays
    assert not start.learned(0)[0]


def test_a_row_without_a_learned_token_is_left_out_and_named(tokenizer: Any) -> None:
    found = learned(tokenizer, "plain", 6)
    assert (len(found.rows), found.silent, found.kept.tolist()) == (0, [0], [])


def test_special_tokens_spelled_out_are_counted(tokenizer: Any) -> None:
    turns = [{"role": "user", "content": "say </s> now"}, {"role": "assistant", "content": "no"}]
    assert encode_conversations([Conversation(turns, [])], Chat(tokenizer), 99, "end", "all").spelled == 1


def test_a_token_that_begins_inside_the_prompt_is_not_learned() -> None:
    offsets = [(0, 3), (3, 6), (6, 8), (9, 11)]  # the last leaves its space out of its offsets
    assert _marks(offsets, [(4, 11)]) == ([0, 0, 1, 1], 1)
    assert _marks(offsets, [(8, 11)]) == ([0, 0, 0, 1], 0)
    assert _marks(offsets, [(0, 3), (6, 8)]) == ([1, 0, 1, 0], 0)


@pytest.mark.parametrize("max_tokens", [2, 3, 7, 100])
def test_every_token_of_a_document_is_learned_once(tokenizer: Any, max_tokens: int) -> None:
    texts = ["hello there friend", "goodbye", "many thanks to you"]
    rows, places = encode_documents(([text[:4], text[4:]] for text in texts), tokenizer, max_tokens)
    counts = [sum(number == own for own, _ in places) for number in range(len(texts))]
    assert sum(counts) == len(rows) and rows.lengths.max() <= max_tokens
    found, row = [], 0
    for text, count in zip(texts, counts, strict=True):
        ids = [token for number in range(row, row + count) for token in rows[number][rows.learned(number)].tolist()]
        row += count
        assert tokenizer.decode(ids) == f"{text}</s>"
        found += ids
    assert int(rows.marks.sum()) == len(found)
