"""Which rows of a forward pass belong to which delta."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

from torch import Tensor

from tunesmith.core.errors import CompatibilityError
from tunesmith.models.layout import Layout


@dataclass(frozen=True)
class Span:
    """A stretch of a seam's input.

    Args:
        dim: the dimension that is cut.
        size: how much of it.
    """

    dim: int
    size: int


class Routing:
    """The active delta, or one delta per row.

    `active` is used for all rows unless names are given for a forward pass. None means the untouched base.
    """

    def __init__(self) -> None:
        self.active: str | None = None
        self.layout: Layout | None = None
        self._names: tuple[str | None, ...] | None = None

    @contextmanager
    def rows(self, names: Sequence[str | None]) -> Iterator[None]:
        """Give each row its delta for the forward passes inside the block.

        Args:
            names: one per row of the batch; None stands for the base.
        """
        before = self._names
        self._names = tuple(names)
        try:
            yield
        finally:
            self._names = before

    def spans(self, x: Tensor, attached: Container[str | None]) -> list[tuple[str | None, Span]]:
        """Cut a seam's input into stretches of one delta each.

        Args:
            x: (..., D), flat (1, N, D) or (N, D) under a layout, else (B, T, D) or (B, D).
            attached: the deltas that have a patch at this seam.
        Returns:
            (delta, stretch) in the order of x; empty when the base alone is to run.
        Raises:
            CompatibilityError: the names do not fit the rows of x.
        """
        if self._names is None:
            return [(self.active, Span(0, x.shape[0]))] if self.active in attached else []
        if not any(name in attached for name in self._names):
            return []
        runs = [(name, len(list(run))) for name, run in groupby(self._names)]
        if self.layout is None:
            return [(name, Span(0, size)) for name, size in self._checked(runs, x.shape[0])]
        starts, row, spans = self.layout.starts, 0, []
        self._checked(runs, self.layout.rows)
        for name, size in runs:
            spans.append((name, Span(x.dim() - 2, starts[row + size] - starts[row])))
            row += size
        return spans

    def _checked(self, runs: list[tuple[str | None, int]], rows: int) -> list[tuple[str | None, int]]:
        named = sum(size for _, size in runs)
        if named != rows:
            raise CompatibilityError(
                f"{named} delta names were given for a batch of {rows} rows; give one name (or None) per row."
            )
        return runs
