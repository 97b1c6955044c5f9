"""Rows whose texts are drawn anew in every epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tunesmith.data.augmentations.base import Augmentation
from tunesmith.data.tokens import Seen, TokenRows, tokenize

Write = Callable[[int, Callable[[str], str]], str]  # a row's prompt, its text changed by a function


class AugmentedRows(TokenRows):
    """Token rows that training sees in another form in each epoch; evaluation sees them as they are.

    What a row becomes depends on the epoch's draw and on its own number alone, so on no batch, order or process.

    Args:
        rows: as they are.
        tokenizer: of the model.
        write: gives a row's prompt with its text changed.
        steps: the augmentations, in order.
        max_tokens: longest row. [tokens]
        places: (rows,), the numbers that `write` knows the rows by.
    """

    varies = True

    def __init__(
        self,
        rows: TokenRows,
        tokenizer: Any,
        write: Write,
        steps: Sequence[Augmentation],
        max_tokens: int,
        places: np.ndarray[Any, Any] | None = None,
    ) -> None:
        super().__init__(rows.ids, rows.ends, rows.full_lengths)
        self._tokenizer, self._write, self._steps, self._limit = tokenizer, write, steps, max_tokens
        self._places = np.arange(len(rows)) if places is None else places

    def seen(self, row: int, draw: int = 0) -> Seen:
        """Return a row in the form of a draw; as it is for draw 0."""
        if not draw:
            return super().seen(row)
        place = int(self._places[row])
        numbers = np.random.default_rng([draw, place])

        def changed(text: str) -> str:
            for step in self._steps:
                text = step.text(text, numbers)
            return text

        return Seen(tokenize(self._tokenizer, [self._write(place, changed)], self._limit)[0], None)

    def take(self, rows: np.ndarray[Any, Any]) -> AugmentedRows:
        """Return some of the rows; each is drawn as before."""
        plain = super().take(rows)
        return AugmentedRows(plain, self._tokenizer, self._write, self._steps, self._limit, self._places[rows])
