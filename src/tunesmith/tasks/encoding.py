"""From conversations and texts to token rows that know which of their tokens are learned."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

import numpy as np

from tunesmith.core.errors import CheckpointError
from tunesmith.core.growing import Growing
from tunesmith.data.conversations import Conversation
from tunesmith.data.tokens import LearnedRows
from tunesmith.prompts.chat import Chat, Rendered, Span, special_tokens

_CHUNK = 512  # rows that are tokenised at a time
_CHARACTERS = 2**15  # of texts, likewise; more are no faster


@dataclass
class Encoded:
    """Token rows and what was done to them.

    Args:
        rows: those that teach something.
        kept: (rows,), which of the given conversations they are.
        silent: conversations of which no answer was left after cutting.
        merged: answers whose first token begins inside the prompt, so that it is not learned. [count]
        spelled: conversations in which a speaker spells out a special token. [count]
        single: conversations of several answers of which only the last is learned. [count]
    """

    rows: LearnedRows
    kept: np.ndarray[Any, np.dtype[np.int64]]
    silent: list[int] = field(default_factory=list)
    merged: int = 0
    spelled: int = 0
    single: int = 0

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return all of it as arrays by name; `of` reads them."""
        names = ("ids", "ends", "full_lengths", "marks", "characters")
        counts = [self.merged, self.spelled, self.single]
        own = {"kept": self.kept, "silent": np.array(self.silent, np.int64), "counts": np.array(counts)}
        return {**{name: getattr(self.rows, name) for name in names}, **own}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Encoded:
        """Make one of arrays.

        Args:
            arrays: from `arrays`.
        Returns:
            What they were made of.
        """
        rest = dict(arrays)
        kept, silent, counts = (rest.pop(name) for name in ("kept", "silent", "counts"))
        return cls(LearnedRows(**rest), kept, silent.tolist(), *counts.tolist())


class RowBuilder:
    """Rows on their way into flat arrays."""

    def __init__(self) -> None:
        self.ids, self.marks, self.ends = Growing("i"), Growing("B"), Growing("q")
        self.full, self.characters = Growing("q"), Growing("q")
        self.ends.append(0)

    def add(self, ids: Sequence[int], marks: Sequence[int], full: int, characters: int) -> None:
        """Add a row.

        Args:
            ids: of its tokens.
            marks: 1 for a learned token.
            full: tokens before cutting. [count]
            characters: of the learned text. [count]
        """
        self.ids.extend(ids)
        self.marks.extend(marks)
        self.ends.append(len(self.ids))
        self.full.append(full)
        self.characters.append(characters)

    def rows(self) -> LearnedRows:
        """Return what was added."""
        return LearnedRows(
            self.ids.finish(),
            self.ends.finish(),
            self.full.finish(),
            self.marks.finish(),
            self.characters.finish(),
        )


def encode_conversations(
    conversations: Iterable[Conversation], chat: Chat, max_tokens: int, cut: str, learn: str
) -> Encoded:
    """Write conversations with a chat template and mark the tokens of their answers.

    For an encoder-decoder a row is what the encoder reads, then the last answer; each has the limit for itself, and
    special tokens as the tokenizer sets them.

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
    builder, found = RowBuilder(), Encoded(RowBuilder().rows(), np.zeros(0, np.int64))
    encode = _pairs if chat.apart else _whole
    kept, total, specials = Growing("q"), 0, special_tokens(chat.tokenizer)
    for chunk in _chunks(conversations):
        for conversation in chunk:
            found.spelled += any(token in m["content"] for m in conversation.messages for token in specials)
        for number, row in enumerate(encode(chunk, chat, (max_tokens, cut, learn), found), total):
            if any(row.marks):
                builder.add(row.ids, row.marks, row.full, row.characters)
                kept.append(number)
            else:
                found.silent.append(number)
        total += len(chunk)
    found.rows, found.kept = builder.rows(), kept.finish()
    return found


def _chunks(conversations: Iterable[Conversation]) -> Iterator[list[Conversation]]:
    rest = iter(conversations)
    while chunk := list(islice(rest, _CHUNK)):
        yield chunk


@dataclass
class _Row:
    """A row as it is learned from.

    Args:
        ids: after cutting.
        marks: 1 for a learned token.
        full: tokens before cutting. [count]
        characters: of the learned text. [count]
    """

    ids: list[int]
    marks: list[int]
    full: int
    characters: int


_Rules = tuple[int, str, str]  # max_tokens, cut, learn


def _pairs(chunk: list[Conversation], chat: Chat, rules: _Rules, found: Encoded) -> list[_Row]:
    """Encode what an encoder reads, and the answer that its decoder writes."""
    limit, cut, learn = rules
    questions = [chat.asked(conversation.question) for conversation in chunk]
    answers = [conversation.answer for conversation in chunk]
    if learn == "all":
        found.single += sum(any(m["role"] == "assistant" for m in one.question) for one in chunk)
    reads, writes = read_tokens(chat.tokenizer, questions), written_tokens(chat.tokenizer, answers)
    short = read_tokens(chat.tokenizer, questions, limit, cut)
    rows = []
    for whole, read, write, answer in zip(reads, short, writes, answers, strict=True):
        share = min(limit, len(write)) / len(write)
        marks = [0] * len(read) + [1] * len(write[:limit])
        rows.append(_Row([*read, *write[:limit]], marks, len(whole) + len(write), round(share * len(answer))))
    return rows


def read_tokens(tokenizer: Any, texts: Sequence[str], limit: int | None = None, cut: str = "end") -> list[list[int]]:
    """Encode what an encoder reads, with the special tokens that the tokenizer sets around a text.

    Args:
        tokenizer: of the model.
        texts: as `Chat.asked` wrote them.
        limit: longest row; any when None. [tokens]
        cut: "end" or "start", where longer rows lose tokens.
    Returns:
        Token ids of each.
    """
    side, tokenizer.truncation_side = tokenizer.truncation_side, "right" if cut == "end" else "left"
    try:
        found = tokenizer(list(texts), truncation=limit is not None, max_length=limit, verbose=False)["input_ids"]
    finally:
        tokenizer.truncation_side = side
    return [list(row) for row in found]


def written_tokens(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Encode what a decoder writes, with the tokenizer's special tokens and the end token.

    Args:
        tokenizer: of the model.
        texts: answers.
    Returns:
        Token ids of each.
    """
    end, rows = tokenizer.eos_token_id, tokenizer(text_target=list(texts), verbose=False)["input_ids"]
    return [list(row) if row and row[-1] == end else [*row, end] for row in rows]


def _whole(chunk: list[Conversation], chat: Chat, rules: _Rules, found: Encoded) -> list[_Row]:
    """Encode conversations as one sequence each."""
    limit, cut, learn = rules
    written = [chat.conversation(conversation.messages, learn) for conversation in chunk]
    return [
        _cut(ids, marks, characters, (limit, cut, chat.tokenizer.bos_token_id))
        for ids, marks, characters in _tokenized(written, chat, found)
    ]


def _tokenized(chunk: list[Rendered], chat: Chat, found: Encoded) -> list[tuple[list[int], list[int], int]]:
    texts = [rendered.text for rendered in chunk]
    tokens = chat.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    rows = []
    for rendered, ids, offsets in zip(chunk, tokens["input_ids"], tokens["offset_mapping"], strict=True):
        marks, merged = _marks(offsets, rendered.answers)
        found.merged += merged
        rows.append((ids, marks, sum(end - start for start, end in rendered.answers)))
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


def _cut(ids: list[int], marks: list[int], characters: int, rule: tuple[int, str, int | None]) -> _Row:
    (limit, where, begin), full = rule, len(ids)
    if len(ids) > limit and where == "end":
        kept = sum(marks[:limit]) / max(1, sum(marks))
        ids, marks, characters = ids[:limit], marks[:limit], round(characters * kept)
    elif len(ids) > limit:
        keep = 1 if begin is not None and ids[0] == begin else 0  # the begin token stays in front
        tail = limit - keep
        kept = sum(marks[-tail:]) / max(1, sum(marks))
        ids, marks = ids[:keep] + ids[-tail:], marks[:keep] + marks[-tail:]
        characters = round(characters * kept)
    return _Row(ids, [0, *marks[1:]], full, characters)  # nothing comes before the first token: it is not predicted


def encode_endings(begin: Sequence[int], ends: Iterable[Sequence[int]], max_tokens: int) -> LearnedRows:
    """Make rows of one beginning with different endings, which are what is learned.

    Args:
        begin: tokens of the beginning, at least one.
        ends: tokens of each ending.
        max_tokens: longest row. [tokens]
    Returns:
        The rows.
    """
    builder = RowBuilder()
    for end in ends:
        ids, marks = [*begin, *end], [0] * len(begin) + [1] * len(end)
        builder.add(ids[:max_tokens], marks[:max_tokens], len(ids), len(end))
    return builder.rows()


def encode_documents(
    texts: Iterable[Iterable[str]], tokenizer: Any, max_tokens: int
) -> tuple[LearnedRows, np.ndarray[Any, Any]]:
    """Turn texts into rows of at most `max_tokens`; every token but a text's first is learned exactly once.

    A text begins with the tokenizer's begin token and ends with its end token, where it has them. Rows of one text
    share one token: the last of a row is the first of the next, where it is only read.

    Args:
        texts: documents, each in pieces that are tokenised by themselves; one piece, or several of a long text.
        tokenizer: of the model.
        max_tokens: longest row, at least 2. [tokens]
    Returns:
        The rows, and where each begins: (rows, 2), number of the text and of the piece.
    """
    builder, places = RowBuilder(), Growing("q")
    first = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    last = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    for number, (flat, characters, ends) in enumerate(flat_documents(texts, tokenizer, first)):
        flat.extend(last)
        ids = flat.finish()
        starts = range(0, max(1, len(ids) - 1), max_tokens - 1)
        for start in starts:
            row = ids[start : start + max_tokens].tolist()
            share = (len(row) - 1) / max(1, len(ids) - 1)
            builder.add(row, [0] + [1] * (len(row) - 1), len(row), round(share * characters))
            places.extend((number, min(bisect_right(ends, start), len(ends) - 1)))
    return builder.rows(), places.finish().reshape(-1, 2)


def flat_documents(
    texts: Iterable[Iterable[str]], tokenizer: Any, first: Sequence[int] = ()
) -> Iterator[tuple[Growing, int, list[int]]]:
    """Tokenise texts piece by piece, many pieces at a time.

    Args:
        texts: each in pieces, at least one.
        tokenizer: of the model.
        first: tokens that every text begins with.
    Returns:
        Of each text its tokens, its characters, and where each piece ends in the tokens.
    """
    for _, pieces in groupby(_tokenised(texts, tokenizer), itemgetter(0)):
        ids, characters, ends = Growing("i"), 0, list[int]()
        ids.extend(first)
        for _, piece, own in pieces:
            ids.extend(own)
            characters += len(piece)
            ends.append(len(ids))
        yield ids, characters, ends


def _tokenised(texts: Iterable[Iterable[str]], tokenizer: Any) -> Iterator[tuple[int, str, list[int]]]:
    """Tokenise pieces: the number of the text, the piece and its ids, of each."""
    rest = ((number, piece) for number, pieces in enumerate(texts) for piece in pieces)
    while found := _up_to(rest, _CHARACTERS):
        ids = tokenizer([piece for _, piece in found], add_special_tokens=False, verbose=False)["input_ids"]
        yield from ((number, piece, own) for (number, piece), own in zip(found, ids, strict=True))


def _up_to(pieces: Iterator[tuple[int, str]], most: int) -> list[tuple[int, str]]:
    """Take pieces until they have so many characters, at least one."""
    found, characters = list[tuple[int, str]](), 0
    for number, piece in pieces:
        found.append((number, piece))
        characters += len(piece)
        if characters >= most:
            break
    return found
