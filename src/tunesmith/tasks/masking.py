"""Masked language modelling: rows of which some tokens are hidden and predicted from both sides."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tunesmith.core.errors import CheckpointError, RecipeError
from tunesmith.core.growing import Growing
from tunesmith.data.tokens import LearnedRows, Seen
from tunesmith.tasks.encoding import RowBuilder, flat_documents

_MASKED, _OTHER = 0.8, 0.1  # of the chosen tokens: shown as the mask token, as any other; the rest as they are


@dataclass(frozen=True)
class Masking:
    """How tokens are hidden (Devlin et al. 2019, arXiv:1810.04805, section 3.1; drawn anew in every epoch, as in Liu
    et al. 2019, arXiv:1907.11692).

    Args:
        share: of a row's tokens that are predicted. [fraction]
        token: id of the mask token.
        vocabulary: how many tokens there are.
    """

    share: float
    token: int
    vocabulary: int


class MaskedRows(LearnedRows):
    """Rows whose tokens are hidden by a draw; the marks say which may be.

    Args:
        rows: with marks.
        masking: how tokens are hidden.
    """

    varies = True

    def __init__(self, rows: LearnedRows, masking: Masking) -> None:
        super().__init__(rows.ids, rows.ends, rows.full_lengths, rows.marks, rows.characters)
        self.masking = masking

    def seen(self, row: int, draw: int = 0) -> Seen:
        """Hide tokens of a row; the same ones for the same draw."""
        whole, masking = self[row], self.masking
        random = np.random.default_rng((draw, row))
        chosen = random.choice(np.flatnonzero(self._maskable(row)), int(self.targets[row]), replace=False)
        kind = random.random(len(chosen))
        other = random.integers(0, masking.vocabulary, len(chosen))
        shown, learned = whole.copy(), np.zeros(len(whole), bool)
        shown[chosen] = np.where(kind < _MASKED, masking.token, np.where(kind < _MASKED + _OTHER, other, whole[chosen]))
        learned[chosen] = True
        return Seen(shown, learned, whole)

    def _maskable(self, row: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        found: np.ndarray[Any, np.dtype[np.bool_]] = self.marks[self.ends[row] : self.ends[row + 1]].astype(bool)
        return found

    def learned(self, row: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return which of a row's tokens an evaluation predicts, (T,)."""
        found = self.seen(row).learned
        assert found is not None
        return found

    @cached_property
    def targets(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """(rows,), predicted tokens per row; at least one."""
        counts = np.round(self.masking.share * super().targets).astype(np.int64)
        return np.maximum(counts, 1)

    def take(self, rows: np.ndarray[Any, Any]) -> MaskedRows:
        """Return some of the rows; what is hidden in them is drawn by their new numbers."""
        return MaskedRows(super().take(rows), self.masking)


def encode_masked(
    texts: Iterable[Iterable[str]], tokenizer: Any, max_tokens: int, share: float
) -> tuple[MaskedRows, np.ndarray[Any, Any]]:
    """Turn texts into rows of at most `max_tokens`, each between the tokenizer's special tokens.

    Args:
        texts: documents, each in pieces that are tokenised by themselves; one piece, or several of a long text.
        tokenizer: of the model, with a mask token.
        max_tokens: longest row, special tokens included. [tokens]
        share: of a row's tokens that are predicted. [fraction]
    Returns:
        The rows, and where each begins: (rows, 2), number of the text and of the piece.
    Raises:
        CheckpointError: the tokenizer has no mask token, or changes texts between its special tokens.
        RecipeError: no token of a text has room beside the special ones.
    """
    if tokenizer.mask_token_id is None:
        raise CheckpointError(
            "the model's tokenizer has no mask token, so task.objective=masked cannot hide anything. Choose an encoder "
            "that was pretrained by masking (BERT, RoBERTa, ModernBERT and their kin), or task.objective=causal."
        )
    begin, end = around(tokenizer)
    room = max_tokens - len(begin) - len(end)
    if room < 1:
        special = len(begin) + len(end)
        raise RecipeError(
            f"data.max_tokens={max_tokens} leaves no room for text: the model's tokenizer sets {special} special "
            f"tokens around every row. Raise it to {special + 1} or more."
        )
    builder, places = RowBuilder(), Growing("q")
    for number, (flat, characters, ends) in enumerate(flat_documents(texts, tokenizer)):
        ids = flat.finish()
        for start in range(0, len(ids), room):
            row = ids[start : start + room].tolist()
            marks = [*[0] * len(begin), *[1] * len(row), *[0] * len(end)]
            builder.add([*begin, *row, *end], marks, len(marks), round(len(row) / len(ids) * characters))
            places.extend((number, min(bisect_right(ends, start), len(ends) - 1)))
    masking = Masking(share, tokenizer.mask_token_id, len(tokenizer))
    return MaskedRows(builder.rows(), masking), places.finish().reshape(-1, 2)


def around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the special tokens that a tokenizer sets before and after a text.

    Args:
        tokenizer: of a model.
    Returns:
        Ids before, ids after.
    Raises:
        CheckpointError: a text's own tokens do not stand between them.
    """
    inside = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    at = next((place for place in range(len(whole)) if whole[place : place + len(inside)] == inside), None)
    if at is None:
        raise CheckpointError(
            f"the model's tokenizer reads 'a' as the tokens {inside}, and between its special tokens as {whole}, so "
            "task.objective=masked cannot tell which tokens are a text's own. Choose another model."
        )
    return whole[:at], whole[at + len(inside) :]
