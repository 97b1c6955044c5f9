"""Token ids of many rows in one flat array."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tunesmith.core.errors import DataError
from tunesmith.core.growing import Growing

_CHUNK = 1024
_BLOCK = 2**20  # tokens that are looked at together


@dataclass(frozen=True)
class Seen:
    """A row as the model reads it.

    Args:
        ids: (T,), int64.
        learned: (T,), bool, which of its tokens are learned; None where the row has a label instead.
        hidden: (T,), int64, the tokens to be predicted where the model reads others; None where it does not.
        shares: of which rows of the same split it is made, and how much of it is of each; empty where it is itself.
    """

    ids: np.ndarray[Any, np.dtype[np.int64]]
    learned: np.ndarray[Any, np.dtype[np.bool_]] | None
    hidden: np.ndarray[Any, np.dtype[np.int64]] | None = None
    shares: tuple[tuple[int, float], ...] = ()


class TokenRows:
    """Rows of token ids, cut to a limit; what was cut is counted.

    Args:
        ids: all ids one after another, int32.
        ends: (rows + 1,), where each row begins, and the total.
        full_lengths: (rows,), tokens before cutting.
    """

    varies = False  # whether a row is not the same in every epoch

    def __init__(
        self, ids: np.ndarray[Any, Any], ends: np.ndarray[Any, Any], full_lengths: np.ndarray[Any, Any]
    ) -> None:
        self.ids, self.ends, self.full_lengths = ids, ends, full_lengths
        self._lengths: np.ndarray[Any, np.dtype[np.int64]] | None = None

    def __len__(self) -> int:
        return len(self.full_lengths)

    def __getitem__(self, row: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return one row's ids, (T,), int64."""
        return self.ids[self.ends[row] : self.ends[row + 1]].astype(np.int64)

    def learned(self, row: int) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
        """Return which of a row's tokens are learned, (T,); None where the row has a label instead."""
        return None

    def seen(self, row: int, draw: int = 0) -> Seen:
        """Return a row as the model reads it.

        Args:
            row: its number.
            draw: of what is drawn at random, for example the epoch; 0 for evaluation.
        Returns:
            The row, the same one for the same draw.
        """
        return Seen(self[row], self.learned(row))

    def content(self, row: int) -> bytes:
        """Return what a row is told apart by, in this run and in others."""
        return self[row].tobytes()

    def items(self, row: int) -> int:
        """Return how much of a row is learned: one label, or so many tokens. [count]"""
        return 1

    def length(self, row: int) -> int:
        """Return how long a row is at most as the model reads it. [tokens]"""
        return int(self.ends[row + 1] - self.ends[row])

    @property
    def wordings(self) -> list[TokenRows]:
        """The rows in each of their wordings; an answer is the mean over them."""
        return [self]

    def take(self, rows: np.ndarray[Any, Any]) -> TokenRows:
        """Return some of the rows.

        Args:
            rows: their numbers.
        Returns:
            They alone, in that order.
        """
        return TokenRows(self._picked(self.ids, rows), self._ends(rows), self.full_lengths[rows])

    def _picked(self, values: np.ndarray[Any, Any], rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        parts = [values[self.ends[row] : self.ends[row + 1]] for row in rows]
        return np.concatenate(parts) if parts else values[:0]

    def _ends(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.concatenate([[0], np.cumsum(self.lengths[rows])])

    @property
    def lengths(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """(rows,), tokens per row as the model reads it."""
        if self._lengths is None:
            self._lengths = np.diff(self.ends)
        return self._lengths

    @property
    def truncated(self) -> int:
        """Rows that were cut. [count]"""
        return int((self.full_lengths > self.lengths).sum())


class VariedRows(TokenRows):
    """Rows that are worded in several ways: a step reads a drawn wording of each, an answer is the mean over all.

    Args:
        wordings: the same rows each, at least one; what reads one wording reads the first.
    """

    varies = True

    def __init__(self, wordings: Sequence[TokenRows]) -> None:
        first = wordings[0]
        super().__init__(first.ids, first.ends, np.max([one.full_lengths for one in wordings], axis=0))
        self._wordings = list(wordings)
        self._longest = np.max([one.lengths for one in wordings], axis=0)

    @property
    def wordings(self) -> list[TokenRows]:
        """Each wording's rows."""
        return self._wordings

    def seen(self, row: int, draw: int = 0) -> Seen:
        """Return a drawn wording of a row, the first for draw 0."""
        number = 0 if draw == 0 else int(np.random.default_rng((draw, row)).integers(len(self._wordings)))
        return Seen(self._wordings[number][row], None)

    @property
    def lengths(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """(rows,), tokens of each row's longest wording."""
        return self._longest

    def take(self, rows: np.ndarray[Any, Any]) -> VariedRows:
        """Return some of the rows, in all wordings.

        Args:
            rows: their numbers.
        Returns:
            They alone, in that order.
        """
        return VariedRows([one.take(rows) for one in self._wordings])

    def length(self, row: int) -> int:
        """Return how long a row's longest wording is. [tokens]"""
        return int(self._longest[row])

    @property
    def truncated(self) -> int:
        """Rows of which a wording was cut. [count]"""
        return int(np.any([one.full_lengths > one.lengths for one in self._wordings], axis=0).sum())


class LearnedRows(TokenRows):
    """Rows of token ids of which some are learned: the answers, or every token but the first.

    Args:
        ids: all ids one after another, int32.
        ends: (rows + 1,), where each row begins, and the total.
        full_lengths: (rows,), tokens before cutting.
        marks: as long as `ids`, uint8, 1 for a learned token.
        characters: (rows,), of the learned text. [count]
    """

    def __init__(
        self,
        ids: np.ndarray[Any, Any],
        ends: np.ndarray[Any, Any],
        full_lengths: np.ndarray[Any, Any],
        marks: np.ndarray[Any, Any],
        characters: np.ndarray[Any, Any],
    ) -> None:
        super().__init__(ids, ends, full_lengths)
        self.marks, self.characters = marks, characters

    def learned(self, row: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return which of a row's tokens are learned, (T,)."""
        found: np.ndarray[Any, np.dtype[np.bool_]] = self.marks[self.ends[row] : self.ends[row + 1]].astype(bool)
        return found

    def items(self, row: int) -> int:
        """Return how many of a row's tokens are learned. [count]"""
        return int(self.targets[row])

    @cached_property
    def targets(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """(rows,), learned tokens per row."""
        found = np.zeros(len(self), np.int64)
        for start in range(0, len(self), _CHUNK):
            ends = self.ends[start : start + _CHUNK + 1]
            marks = self.marks[ends[0] : ends[-1]]
            sums = np.concatenate([[0], np.cumsum(marks, dtype=np.int64)])[ends - ends[0]]
            found[start : start + _CHUNK] = np.diff(sums)
        return found

    def take(self, rows: np.ndarray[Any, Any]) -> LearnedRows:
        """Return some of the rows.

        Args:
            rows: their numbers.
        Returns:
            They alone, in that order.
        """
        ids, marks = self._picked(self.ids, rows), self._picked(self.marks, rows)
        return LearnedRows(ids, self._ends(rows), self.full_lengths[rows], marks, self.characters[rows])


class RowMaker:
    """What makes rows in a tokenizer's place, of cells that are no texts but name something, such as images."""

    def rows(self, texts: Iterable[str]) -> TokenRows:
        """Make rows of cells.

        Args:
            texts: the cells.
        Returns:
            The rows.
        Raises:
            DataError: what a cell names cannot be read.
        """
        raise NotImplementedError

    def content(self, text: str) -> str:
        """Return what tells apart what cells name.

        Args:
            text: a cell.
        Returns:
            The same for two cells that name the same.
        """
        raise NotImplementedError

    def augmented(self, rows: TokenRows, steps: Sequence[Any]) -> TokenRows:
        """Let training see rows in other forms.

        Args:
            rows: that it made.
            steps: augmentations, in order.
        Returns:
            Rows that are another form for another draw.
        """
        raise NotImplementedError

    def beside(self, text: str, path: str) -> str:
        """Look up what a cell names, beside the file that holds the cell.

        Args:
            text: the cell.
            path: of the data file.
        Returns:
            The cell as it is to be read.
        """
        raise NotImplementedError


def unknown_tokens(rows: TokenRows, tokenizer: Any, name: str) -> list[str]:
    """Say how much of some rows the tokenizer does not know.

    Args:
        rows: of a split.
        tokenizer: that made them.
        name: of the split.
    Returns:
        A sentence, or nothing where all is known.
    """
    unknown = getattr(tokenizer, "unk_token_id", None)
    blocks = range(0, 0 if unknown is None else len(rows.ids), _BLOCK)
    count = sum(int((rows.ids[start : start + _BLOCK] == unknown).sum()) for start in blocks)
    if not count:
        return []
    return [
        f"{name}: {count:,} of {len(rows.ids):,} tokens ({100 * count / len(rows.ids):.2g} %) are unknown to the "
        f"tokenizer and read as {tokenizer.unk_token}; what stood there is lost, and easy to predict."
    ]


def tokenize(tokenizer: Any, texts: Iterable[str], max_tokens: int) -> TokenRows:
    """Turn texts into token ids, special tokens included, each row at most `max_tokens` long.

    Args:
        tokenizer: a transformers tokenizer, or what makes rows in its place.
        texts: any number; read once.
        max_tokens: the limit. [tokens]
    Returns:
        The rows, and how long they would have been.
    Raises:
        DataError: a text without any token.
    """
    if isinstance(tokenizer, RowMaker):
        return tokenizer.rows(texts)
    ids, ends, full = Growing("i"), Growing("q"), Growing("q")
    ends.append(0)
    chunk: list[str] = []

    def flush() -> None:
        if not chunk:
            return
        # Long rows are cut by the tokenizer, which keeps its final special token; their full length is counted.
        whole = tokenizer(chunk, add_special_tokens=True, truncation=False, verbose=False)["input_ids"]
        long = [i for i, row in enumerate(whole) if len(row) > max_tokens]
        cut: dict[int, list[int]] = {}
        if long:
            short = tokenizer([chunk[i] for i in long], truncation=True, max_length=max_tokens)["input_ids"]
            cut = dict(zip(long, short, strict=True))
        for i, row in enumerate(whole):
            kept = cut.get(i, row)
            if not kept:
                raise DataError(
                    f"the text {chunk[i][:80]!r} (row {len(full) + 1}) gives no token: the model would read nothing."
                )
            ids.extend(kept)
            ends.append(len(ids))
            full.append(len(row))
        chunk.clear()

    for text in texts:
        chunk.append(text)
        if len(chunk) >= _CHUNK:
            flush()
    flush()
    return TokenRows(ids.finish(), ends.finish(), full.finish())
