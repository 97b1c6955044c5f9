"""Which rows of a forward pass belong to which delta."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from weakref import ref

from torch import Tensor, nn

from tunesmith.core.errors import CompatibilityError
from tunesmith.models.dropout import DropoutSource
from tunesmith.models.joint import Joint
from tunesmith.models.layout import Layout


@dataclass(frozen=True)
class Span:
    """A stretch of a seam's input that belongs to one delta.

    Args:
        name: of the delta; None for the base.
        dim: the dimension that is cut.
        size: how much of it.
    """

    name: str | None
    dim: int
    size: int


class Routing:
    """The active delta, or one delta per row.

    `active` is used for all rows unless names are given for a forward pass. None means the untouched base.
    """

    def __init__(self) -> None:
        self.active: str | None = None
        self.swapped: str | None = None  # the delta whose copies stand in everywhere
        self.layout: Layout | None = None
        self.names: tuple[str | None, ...] | None = None
        self.expected: int | None = None  # rows of the caller's batch, where names were given for them
        self.repeat = 1  # adjacent rows per name: the beams of a search
        self.quick = False  # whether other forms of the same functions may stand in: not in a user's own calls
        self.twice = False  # whether gradients will be differentiated again: fused nodes give first ones only
        self.layers: list[ref[nn.Module]] = []  # their flags say whether they run again for gradients
        self.joint = Joint()
        self.dropout = DropoutSource()
        self.sources: dict[str, DropoutSource] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Let a model be copied and saved: weak references cannot be."""
        return {**self.__dict__, "layers": [layer() for layer in self.layers]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Refer weakly to the layers of the copy."""
        self.__dict__.update(state, layers=[ref(layer) for layer in state["layers"] if layer is not None])

    @contextmanager
    def rows(self, names: Sequence[str | None] | None, expected: int | None = None) -> Iterator[None]:
        """Give each row its delta for the forward passes inside the block.

        Args:
            names: one per row of the batch; None stands for the base.
            expected: rows that the batch must have; None where nobody said. [count]
        """
        before = self.names, self.expected, self.repeat
        self.names, self.expected, self.repeat = None if names is None else tuple(names), expected, 1
        try:
            yield
        finally:
            self.names, self.expected, self.repeat = before

    @contextmanager
    def only(self, name: str | None) -> Iterator[None]:
        """Use one delta for all rows inside the block; for work inside a pass on a part of its rows.

        Args:
            name: of the delta.
        """
        before = self.active, self.names, self.expected
        self.active, self.names, self.expected = name, None, None
        try:
            yield
        finally:
            self.active, self.names, self.expected = before

    @contextmanager
    def quickly(self) -> Iterator[None]:
        """Let faster forms that round differently stand in inside the block; outside a model answers as it came."""
        before, self.quick = self.quick, True
        try:
            yield
        finally:
            self.quick = before
            self.joint.forget()

    @contextmanager
    def batch(self, rows: int) -> Iterator[None]:
        """Note how many rows a padded pass really has: a search over several beams repeats each of the caller's.

        What runs after the block, as a model's head does, has the same rows until the next pass or the route's end.

        Args:
            rows: of the batch. [count]
        """
        before = self.repeat
        named = len(self.names or ())
        self.repeat = rows // named if named and self.layout is None and rows % named == 0 else 1
        try:
            yield
        finally:
            if not named:
                self.repeat = before

    @property
    def recomputes(self) -> bool:
        """Whether layers run a second time in the backward pass; torch then repeats its own random numbers only."""
        return any(getattr(layer(), "gradient_checkpointing", False) for layer in self.layers)

    @property
    def used(self) -> list[str]:
        """The deltas that the present pass uses, sorted."""
        names = (self.active,) if self.names is None else self.names
        return sorted({name for name in names if name is not None})

    def source(self) -> DropoutSource:
        """Return where the active delta's dropout is drawn: its own stream when it has one."""
        return self.sources.get(self.active or "", self.dropout)

    def touches(self, attached: Container[str | None]) -> bool:
        """Say whether a row of the present pass uses one of these deltas.

        Args:
            attached: names of deltas.
        Returns:
            True when one does.
        """
        if self.names is None:
            return self.active in attached
        return any(name in attached for name in self.names)

    def check_rows(self, rows: int, where: str) -> None:
        """Refuse a batch of other rows than names were given for; a search over beams repeats each row.

        Args:
            rows: of the batch. [count]
            where: the module that was called.
        Raises:
            CompatibilityError: both numbers are shown.
        """
        if self.expected is not None and rows % self.expected:
            _check_rows(self.expected, rows, where)

    def spans(self, x: Tensor, where: str) -> list[Span]:
        """Cut a mixed pass's tensor into stretches of one delta each.

        Args:
            x: tokens of a flat batch in its first or second dimension, else rows in its first.
            where: the module that was called, for errors.
        Returns:
            Stretches in the order of x.
        Raises:
            CompatibilityError: x does not hold one part per row.
        """
        assert self.names is not None
        runs = [(name, len(list(run))) for name, run in groupby(self.names)]
        if self.layout is None:
            _check_rows(len(self.names), x.shape[0] // self.repeat, where)
            return [Span(name, 0, size * self.repeat) for name, size in runs]
        _check_rows(len(self.names), self.layout.rows, where)
        if self.layout.tokens not in x.shape[:2]:
            raise CompatibilityError(
                f"'{where}' is called with shape {tuple(x.shape)}, which does not hold one part per token of the "
                f"batch ({self.layout.tokens}); deltas cannot be mixed there. Give each delta batches of its own."
            )
        dim = 0 if x.shape[0] == self.layout.tokens else 1
        starts, row, spans = self.layout.starts, 0, []
        for name, size in runs:
            spans.append(Span(name, dim, starts[row + size] - starts[row]))
            row += size
        return spans


def _check_rows(named: int, rows: int, where: str) -> None:
    if named != rows:
        raise CompatibilityError(
            f"{named} delta names were given, but '{where}' is called with {rows} rows; give one name (or None) "
            "per row. A model that regroups rows inside cannot mix deltas: give each delta batches of its own."
        )
