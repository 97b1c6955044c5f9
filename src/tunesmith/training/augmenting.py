"""Training rows with labels' texts beside them, and with tokens that are hidden anew in every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tunesmith.core.errors import CheckpointError
from tunesmith.data.tokens import Seen, TokenRows, tokenize
from tunesmith.recipe.schema import TrainingSettings
from tunesmith.training.corpus import Split


class DroppedRows(TokenRows):
    """Rows of which a share of the tokens is replaced by one token, drawn for each epoch; special tokens stay.

    Args:
        rows: as they are.
        share: of a row's tokens, on average. [fraction]
        token: that stands in their place.
        special: ids of tokens that stay.
    """

    varies = True

    @property
    def lengths(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """(rows,), tokens of each row, of its longest wording."""
        return self.rows.lengths

    def length(self, row: int) -> int:
        """Return how long a row is. [tokens]"""
        return self.rows.length(row)

    def __init__(self, rows: TokenRows, share: float, token: int, special: Sequence[int]) -> None:
        super().__init__(rows.ids, rows.ends, rows.full_lengths)
        self.rows, self.share, self.token, self.special = rows, share, token, np.asarray(special)

    def seen(self, row: int, draw: int = 0) -> Seen:
        """Replace tokens of a row; the same ones for the same draw."""
        ids = self.rows.seen(row, draw).ids
        gone = np.random.default_rng((draw, row)).random(len(ids)) < self.share
        return Seen(np.where(gone & ~np.isin(ids, self.special), self.token, ids), None)


class JoinedRows(TokenRows):
    """Rows, and others behind them.

    Args:
        first: rows.
        second: those behind.
    """

    def __init__(self, first: TokenRows, second: TokenRows) -> None:
        super().__init__(
            np.concatenate([first.ids, second.ids]),
            np.concatenate([first.ends, first.ends[-1] + second.ends[1:]]),
            np.concatenate([first.full_lengths, second.full_lengths]),
        )
        self.first, self.second, self.varies = first, second, first.varies

    @property
    def lengths(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """(rows,), tokens of each row, of its longest wording."""
        return np.concatenate([self.first.lengths, self.second.lengths])

    def length(self, row: int) -> int:
        """Return how long a row is. [tokens]"""
        return int(self.lengths[row])

    def seen(self, row: int, draw: int = 0) -> Seen:
        """Return a row as it is read."""
        count = len(self.first)
        return self.first.seen(row, draw) if row < count else self.second.seen(row - count, draw)


def augmented(split: Split, settings: TrainingSettings, label_texts: Sequence[Sequence[str]], reading: Any) -> Split:
    """Return the rows as they train.

    Args:
        split: the training rows.
        settings: of the recipe.
        label_texts: of each label.
        reading: tokenizer and longest row of the model.
    Returns:
        The split itself where nothing is added to it; rows that are added stand behind its own.
    Raises:
        CheckpointError: tokens are to be hidden and the tokenizer has no token for it.
    """
    tokenizer = reading.tokenizer
    if tokenizer is None and (settings.label_rows or settings.token_dropout):
        raise CheckpointError(
            "training.label_rows and training.token_dropout are about texts, and the model reads none. Leave them out."
        )
    if settings.label_rows:
        split = _with_label_rows(split, settings.label_rows, label_texts, reading)
    if settings.token_dropout:
        token = tokenizer.mask_token_id if tokenizer.mask_token_id is not None else tokenizer.unk_token_id
        if token is None:
            raise CheckpointError(
                "training.token_dropout: the model's tokenizer has neither a mask token nor one for unknown words to "
                "put in place of others. Leave it out."
            )
        tokens = DroppedRows(split.tokens, settings.token_dropout, token, tokenizer.all_special_ids)
        split = replace(split, tokens=tokens)
    return split


def _with_label_rows(split: Split, share: float, label_texts: Sequence[Sequence[str]], reading: Any) -> Split:
    """Put labels' texts behind the rows, label by label, a further text of each label in every round."""
    count, classes = max(1, round(share * len(split.labels))), len(label_texts)
    codes = [number % classes for number in range(count)]
    chosen = [label_texts[code][number // classes % len(label_texts[code])] for number, code in enumerate(codes)]
    added = tokenize(reading.tokenizer, chosen, reading.max_tokens)
    labels = np.concatenate([split.labels, np.array(codes, dtype=np.int64)])
    soft = (
        None
        if split.soft is None
        else np.concatenate([split.soft, np.eye(split.soft.shape[1], dtype=np.float32)[codes]])
    )
    own = split.weights  # a label's text weighs as much as a row does on average
    weights = None if own is None else np.concatenate([own, np.full(count, own.mean())])
    return replace(split, tokens=JoinedRows(split.tokens, added), labels=labels, soft=soft, weights=weights)
