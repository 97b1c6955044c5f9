"""Views of a row: the same text with some of its tokens left out."""

from __future__ import annotations

from typing import Any

import numpy as np

from tunesmith.data.tokens import Seen, TokenRows

_EVER = 0  # draw of the rows as they are scored


class ThinnedRows(TokenRows):
    """Rows that lose some of their tokens at random, anew in every draw; the first and the last one stay.

    Args:
        rows: the whole rows.
        share: of the inner tokens that is left out. [fraction]
        seed: of the draws.
    """

    def __init__(self, rows: TokenRows, share: float, seed: int) -> None:
        super().__init__(rows.ids, rows.ends, rows.full_lengths)
        self.share, self.seed = share, seed

    def seen(self, row: int, draw: int = _EVER) -> Seen:
        """Return a row without the tokens that the draw leaves out."""
        ids = self[row]
        return Seen(ids[self._kept(row, draw, len(ids))], None)

    def _kept(self, row: int, draw: int, length: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        kept = np.random.default_rng((self.seed, draw, row)).random(length) >= self.share
        kept[[0, -1]] = True
        if length > 2 and not kept[1:-1].any():  # nothing of the text would be left
            kept[1 + (draw + row) % (length - 2)] = True
        return kept


class HalvedRows(ThinnedRows):
    """One of two views that share no inner token: every token goes to one of them at random, anew in every draw.

    Args:
        rows: the whole rows.
        half: 0 or 1, which of the two views.
        seed: of the draws, the same for both views.
    """

    def __init__(self, rows: TokenRows, half: int, seed: int) -> None:
        super().__init__(rows, 0.5, seed)
        self.half = half

    def _kept(self, row: int, draw: int, length: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        inner = max(0, length - 2)
        order = np.random.default_rng((self.seed, draw, row)).permutation(inner)
        kept = np.ones(length, dtype=bool)
        if inner > 1:  # a single token stays in both
            kept[1 + order[self.half :: 2]] = False
        return kept
