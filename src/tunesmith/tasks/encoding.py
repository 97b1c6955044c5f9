"""From conversations and texts to token rows that know which of their tokens are learned."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tunesmith.core.errors import CheckpointError
from tunesmith.data.conversations import Conversation
from tunesmith.data.tokens import LearnedRows
from tunesmith.prompts.chat import Chat, Rendered, Span, special_tokens

_CHUNK = 512  # rows that are tokenised at a time


@dataclass
class Encoded:
    """Token rows and what was done to them.

    Args:
        rows: those that teach something.
        kept: (rows,), which of the given conversations they are.
        silent: conversations of which no answer was left after cutting.
        merged: answers whose first token begins inside the prompt, so that it is not learned. [count]
        spelled: conversations in which a speaker spells out a special token. [count]
    """

    rows: LearnedRows
    kept: np.ndarray[Any, np.dtype[np.int64]]
    silent: list[int] = field(default_factory=list)
    merged: int = 0
    spelled: int = 0


class _Builder:
    """Rows on their way into flat arrays."""

    def __init__(self) -> None:
        self.ids, self.marks, self.ends = array("i"), array("B"), array("q", [0])
        self.full, self.characters = array("q"), array("q")

    def add(self, ids: Sequence[int], marks: Sequence[int], full: int, characters: int) -> None:
        self.ids.extend(ids)
        self.marks.extend(marks)
        self.ends.append(len(self.ids))
        self.full.append(full)
        self.characters.append(characters)

    def rows(self) -> LearnedRows:
        return LearnedRows(
            np.array(self.ids, dtype=np.int32),
            np.array(self.ends, dtype=np.int64),
            np.array(self.full, dtype=np.int64),
            np.array(self.marks, dtype=np.uint8),
            np.array(self.characters, dtype=np.int64),
        )


def encode_conversations(
    conversations: Iterable[Conversation], chat: Chat, max_tokens: int, cut: str, learn: str
) -> Encoded:
    """Write conversations with a chat template and mark the tokens of their answers.

    Args:
        conversations: any number; read once.
        chat: the template, with the tokenizer.
        max_tokens: longest row. [tokens]
        cut: "end" or "start", where longer rows lose tokens.
        learn: "all" answers or the "last" one.
    Returns:
        The rows.
    Raises:
        DataError: the template refuses a conversation.
        CheckpointError: the tokenizer cannot say where its tokens stand in the text.
    """
    if not chat.tokenizer.is_fast:
        raise CheckpointError(
            "the model's tokenizer cannot say where its tokens stand in a text, so it is not known which are answers. "
            "A fast tokenizer (tokenizer.json) is needed."
        )
    builder, found = _Builder(), Encoded(_Builder().rows(), np.zeros(0, np.int64))
    kept: list[int] = []
    chunk: list[Rendered] = []

    def flush(first: int) -> None:
        for number, row in enumerate(_tokenized(chunk, chat, learn, found), first):
            ids, marks, characters = _cut(row, max_tokens, cut, chat.tokenizer.bos_token_id)
            if any(marks):
                builder.add(ids, marks, len(row[0]), characters)
                kept.append(number)
            else:
                found.silent.append(number)
        chunk.clear()

    specials, total = special_tokens(chat.tokenizer), 0
    for conversation in conversations:
        found.spelled += any(token in m["content"] for m in conversation.messages for token in specials)
        chunk.append(chat.conversation(conversation.messages))
        total += 1
        if len(chunk) >= _CHUNK:
            flush(total - len(chunk))
    flush(total - len(chunk))
    found.rows, found.kept = builder.rows(), np.array(kept, dtype=np.int64)
    return found


_Row = tuple[list[int], list[int], int]  # ids, marks, characters learned


def _tokenized(chunk: list[Rendered], chat: Chat, learn: str, found: Encoded) -> list[_Row]:
    if not chunk:
        return []
    texts = [rendered.text for rendered in chunk]
    tokens = chat.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    rows = []
    for rendered, ids, offsets in zip(chunk, tokens["input_ids"], tokens["offset_mapping"], strict=True):
        spans = rendered.answers if learn == "all" else rendered.answers[-1:]
        marks, merged = _marks(offsets, spans)
        found.merged += merged
        rows.append((ids, marks, sum(end - start for start, end in spans)))
    return rows


def _marks(offsets: Sequence[Span], spans: Sequence[Span]) -> tuple[list[int], int]:
    """Mark the tokens that begin inside a span; count those that reach into one from before it.

    Some tokenizers leave the space before a word out of its offsets: such a token begins where the last one ended.
    """
    marks, merged, end, number = [], 0, 0, 0
    for begin, stop in offsets:
        begin, end = min(begin, end), max(stop, end)
        while number < len(spans) and begin >= spans[number][1]:
            number += 1
        inside = number < len(spans) and begin >= spans[number][0]
        marks.append(int(inside))
        merged += number < len(spans) and begin < spans[number][0] < stop
    return marks, merged


def _cut(row: _Row, limit: int, where: str, begin: int | None) -> _Row:
    ids, marks, characters = row
    if len(ids) > limit and where == "end":
        kept = sum(marks[:limit]) / max(1, sum(marks))
        ids, marks, characters = ids[:limit], marks[:limit], round(characters * kept)
    elif len(ids) > limit:
        keep = 1 if begin is not None and ids[0] == begin else 0  # the begin token stays in front
        tail = limit - keep
        kept = sum(marks[-tail:]) / max(1, sum(marks))
        ids, marks = ids[:keep] + ids[-tail:], marks[:keep] + marks[-tail:]
        characters = round(characters * kept)
    return ids, [0, *marks[1:]], characters  # nothing comes before the first token, so it cannot be predicted


def encode_documents(
    texts: Iterable[Iterable[str]], tokenizer: Any, max_tokens: int
) -> tuple[LearnedRows, list[tuple[int, int]]]:
    """Turn texts into rows of at most `max_tokens`; every token but a text's first is learned exactly once.

    A text begins with the tokenizer's begin token and ends with its end token, where it has them. Rows of one text
    share one token: the last of a row is the first of the next, where it is only read.

    Args:
        texts: documents, each in pieces that are tokenised by themselves; one piece, or several of a long text.
        tokenizer: of the model.
        max_tokens: longest row, at least 2. [tokens]
    Returns:
        The rows, and where each begins: number of the text and of the piece.
    """
    builder, places = _Builder(), list[tuple[int, int]]()
    first = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    last = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    for number, pieces in enumerate(texts):
        ids, characters, ends = array("i", first), 0, list[int]()
        for piece in pieces:
            ids.extend(tokenizer(piece, add_special_tokens=False, verbose=False)["input_ids"])
            characters += len(piece)
            ends.append(len(ids))
        ids.extend(last)
        starts = range(0, max(1, len(ids) - 1), max_tokens - 1)
        for start in starts:
            row = ids[start : start + max_tokens]
            share = (len(row) - 1) / max(1, len(ids) - 1)
            builder.add(row, [0] + [1] * (len(row) - 1), len(row), round(share * characters))
            places.append((number, min(bisect_right(ends, start), len(ends) - 1)))
    return builder.rows(), places
