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

    drawn = True

    def __init__(self, rows: TokenRows, share: float, token: int, special: Sequence[int]) -> None:
        super().__init__(rows.ids, rows.ends, rows.full_lengths)
        self.share, self.token, self.special = share, token, np.asarray(special)

    def seen(self, row: int, draw: int = 0) -> Seen:
        """Replace tokens of a row; the same ones for the same draw."""
        ids = self[row]
        gone = np.random.default_rng((draw, row)).random(len(ids)) < self.share
        return Seen(np.where(gone & ~np.isin(ids, self.special), self.token, ids), None)


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
    tokens = TokenRows(
        np.concatenate([split.tokens.ids, added.ids]),
        np.concatenate([split.tokens.ends, split.tokens.ends[-1] + added.ends[1:]]),
        np.concatenate([split.tokens.full_lengths, added.full_lengths]),
    )
    return replace(split, tokens=tokens, labels=np.concatenate([split.labels, np.array(codes, dtype=np.int64)]))
