"""A ragged batch: all tokens of all rows one after another, and where each row begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor

from tunesmith.models.placing import moved
from tunesmith.models.sight import Sight, sight_of


@dataclass(frozen=True)
class Bucket:
    """Neighbouring rows seen as one (n, T) block; cells past a row's end repeat the row's own last token.

    Args:
        rows: n. [count]
        length: T, the longest of them. [tokens]
        start: first token of the first row.
        tokens: of all its rows. [count]
        cells: (n * T,), which token fills each cell; None when all rows have length T.
        held: (tokens,), which cells hold a token; None as above.
        real: (n, 1, 1, T), bool, True where a cell holds a token; None as above.
        name: of the rows' delta, where rows of one batch use several.
    """

    rows: int
    length: int
    start: int
    tokens: int
    cells: Tensor | None = None
    held: Tensor | None = None
    real: Tensor | None = None
    name: str | None = None

    @classmethod
    def of(cls, lengths: Sequence[int], start: int, name: str | None = None) -> Bucket:
        """Make the bucket of neighbouring rows.

        Args:
            lengths: of the rows, rising.
            start: first token of the first row.
            name: of their delta.
        Returns:
            The bucket.
        """
        rows, longest, tokens = len(lengths), max(lengths), sum(lengths)
        if min(lengths) == longest:
            return cls(rows, longest, start, tokens, name=name)
        sizes = torch.tensor(lengths)[:, None]
        places = torch.arange(longest)[None, :]
        starts = torch.tensor([0, *accumulate(lengths)][:-1])[:, None]
        real = places < sizes
        cells = (starts + torch.minimum(places, sizes - 1)).reshape(-1)
        held = real.reshape(-1).nonzero()[:, 0]
        return cls(rows, longest, start, tokens, cells, held, real[:, None, None, :], name)

    @cached_property
    def _moved(self) -> dict[tuple[str, torch.device], Tensor]:
        return {}

    def on(self, name: Literal["cells", "held", "real"], device: torch.device) -> Tensor:
        """Return one of its tensors on a device; all layers of a pass ask for the same.

        Args:
            name: of a tensor that is there.
            device: where the batch is.
        Returns:
            The tensor.
        """
        key = name, device
        if key not in self._moved:
            self._moved[key] = getattr(self, name).to(device)
        return self._moved[key]

    def heads(self, flat: Tensor) -> Tensor:
        """See the bucket's tokens as heads of a block; nothing is copied where all rows have one length.

        Args:
            flat: (tokens, H, d).
        Returns:
            (n, H, T, d), not contiguous.
        """
        if self.cells is None:
            block = flat
        elif self.held is None:
            block = flat.index_select(0, self.on("cells", flat.device))
        else:
            places = self.on("cells", flat.device), self.on("held", flat.device)
            block = _Laid.apply(flat, *places)  # type: ignore[no-untyped-call]
        return block.view(self.rows, self.length, *flat.shape[1:]).transpose(1, 2)

    def spread(self, flat: Tensor) -> Tensor:
        """Lay the bucket's tokens out as heads of a block.

        Args:
            flat: (tokens, H, d).
        Returns:
            (n, H, T, d), contiguous.
        """
        return self.heads(flat).contiguous()

    def gather(self, block: Tensor) -> Tensor:
        """Undo `spread`, leaving out the cells that hold no token.

        Args:
            block: (n, H, T, d).
        Returns:
            (tokens, H, d).
        """
        flat = block.transpose(1, 2).reshape(self.rows * self.length, block.shape[1], block.shape[3])
        return flat if self.held is None else _Held.apply(flat, self.on("held", flat.device))  # type: ignore[no-untyped-call]


class _Laid(torch.autograd.Function):
    """Lay tokens out in cells; cells that hold no token repeat one, are masked everywhere and get no gradient."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, cells: Tensor, held: Tensor) -> Tensor:
        """Take a token for every cell."""
        ctx.held = held
        return flat.index_select(0, cells)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """Take every token's own cell."""
        return grads[0].index_select(0, ctx.held), None, None


class _Held(torch.autograd.Function):
    """Take the cells that hold a token."""

    @staticmethod
    def forward(ctx: Any, laid: Tensor, held: Tensor) -> Tensor:
        """Take them."""
        ctx.held, ctx.shape = held, laid.shape
        return laid.index_select(0, held)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Put the gradients into their cells; the others have none."""
        return grads[0].new_zeros(ctx.shape).index_copy_(0, ctx.held, grads[0]), None


@dataclass(frozen=True)
class Group:
    """Buckets of equal length that run as one block of rows.

    Args:
        numbers: of the buckets.
        block: all their rows; cells are tokens of the whole flat batch where places are given.
        places: (tokens,), where the rows' tokens are in the flat batch; None for a single bucket.
    """

    numbers: tuple[int, ...]
    block: Bucket
    places: Tensor | None = None

    @classmethod
    def of(cls, numbers: Sequence[int], buckets: Sequence[Bucket]) -> Group:
        """Put buckets of one length together.

        Args:
            numbers: of the group's buckets.
            buckets: of the layout.
        Returns:
            The group.
        """
        parts = [buckets[number] for number in numbers]
        if len(parts) == 1:
            return cls(tuple(numbers), parts[0])
        own = [torch.arange(part.tokens) if part.cells is None else part.cells for part in parts]
        cells = torch.cat([found + part.start for found, part in zip(own, parts, strict=True)])
        rows, tokens = sum(part.rows for part in parts), sum(part.tokens for part in parts)
        if all(part.real is None for part in parts):
            return cls(tuple(numbers), Bucket(rows, parts[0].length, 0, tokens, cells), cells)
        full = [torch.ones(part.rows, 1, 1, part.length, dtype=torch.bool) for part in parts]
        real = torch.cat([some if part.real is None else part.real for some, part in zip(full, parts, strict=True)])
        held = real.reshape(-1).nonzero()[:, 0]
        return cls(tuple(numbers), Bucket(rows, parts[0].length, 0, tokens, cells, held, real), cells[held])

    def laid(self, flat: Tensor) -> Tensor:
        """Lay the group's tokens out as heads of a block; nothing is copied where neighbouring rows have one length.

        Args:
            flat: (N, H, d), the whole batch.
        Returns:
            (n, H, T, d), not contiguous.
        """
        start, tokens = self.block.start, self.block.tokens
        return self.block.heads(flat if self.places is not None else flat[start : start + tokens])

    @cached_property
    def _moves(self) -> dict[tuple[int, torch.device], tuple[Tensor, Tensor]]:
        return {}

    def _places(self, heads: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Say where each head of a cell is taken from, (n * H * T,), and each head of a token, (tokens * H,)."""
        if (heads, device) not in self._moves:
            block, numbers = self.block, torch.arange(heads)
            cells = torch.arange(block.tokens) if block.cells is None else block.cells
            cells = cells + (block.start if self.places is None else 0)
            taken = cells.view(block.rows, 1, block.length) * heads + numbers[:, None]
            held = torch.arange(block.rows * block.length) if block.held is None else block.held
            rows, places = held // block.length, held % block.length
            put = (rows[:, None] * heads + numbers) * block.length + places[:, None]
            self._moves[heads, device] = taken.reshape(-1).to(device), put.reshape(-1).to(device)
        return self._moves[heads, device]

    def take(self, flat: Tensor) -> Tensor:
        """Lay the group's tokens out as heads of a block of their own, in one pass over them.

        Args:
            flat: (N, H, d), the whole batch.
        Returns:
            (n, H, T, d), contiguous.
        """
        heads, width = flat.shape[1:]
        found = flat.reshape(-1, width).index_select(0, self._places(heads, flat.device)[0])
        return found.view(self.block.rows, heads, self.block.length, width)

    def put(self, block: Tensor, flat: Tensor) -> None:
        """Write a block back to where its tokens were taken from.

        Args:
            block: (n, H, T, d).
            flat: (N, H, d), the whole batch, contiguous; changed in place.
        """
        if block.is_contiguous():
            self._put_whole(block, flat)
        elif self.places is None:
            flat[self.block.start : self.block.start + self.block.tokens] = self.block.gather(block)
        else:
            flat.index_copy_(0, self.places.to(flat.device), self.block.gather(block))

    def _put_whole(self, block: Tensor, flat: Tensor) -> None:
        """Write a contiguous block back in one pass over the tokens."""
        heads, width = flat.shape[1:]
        rows, places = block.view(-1, width), self._places(heads, flat.device)[1]
        if self.places is not None:
            found = rows.index_select(0, places).view(-1, heads, width)
            flat.index_copy_(0, self.places.to(flat.device), found)
        elif rows.dtype != flat.dtype:
            self._own(flat).copy_(rows.index_select(0, places))
        else:
            torch.index_select(rows, 0, places, out=self._own(flat))

    def _own(self, flat: Tensor) -> Tensor:
        """See a bucket's heads of tokens in the whole batch, (tokens * H, d)."""
        start, tokens = self.block.start, self.block.tokens
        return flat[start : start + tokens].view(-1, flat.shape[2])


@dataclass(frozen=True)
class Layout:
    """Where the rows of a flat batch lie; rows of equal length stand together.

    Args:
        lengths: tokens per row, each at least 1, equal ones of a delta adjacent. [count]
        names: the delta of each row, those of one delta adjacent; None when all rows use the active one.
        leads: rows of virtual tokens, each the first of its delta's; the delta's other rows see their keys and values.
    """

    lengths: tuple[int, ...]
    names: tuple[str | None, ...] | None = None
    leads: tuple[int, ...] = ()

    @cached_property
    def starts(self) -> list[int]:
        """First token of each row, and the total at the end: R + 1 numbers."""
        return [0, *accumulate(self.lengths)]

    @property
    def tokens(self) -> int:
        """N, the number of tokens."""
        return self.starts[-1]

    @property
    def rows(self) -> int:
        """R, the number of rows."""
        return len(self.lengths)

    @cached_property
    def buckets(self) -> list[Bucket]:
        """Adjacent rows of like length and of one delta, so that attention runs as few products.

        A bucket holds rows of at most a quarter and 8 tokens more than its shortest one. It never crosses deltas: each
        delta's attention is computed exactly as in a batch of its own.
        """
        names = self.names or (None,) * self.rows
        buckets, first = [], 0
        for row in range(1, self.rows + 1):
            full = row == self.rows or names[row] != names[first] or first in self.leads
            if full or self.lengths[row] > 1.25 * self.lengths[first] + 8 or self.lengths[row] < self.lengths[first]:
                buckets.append(Bucket.of(self.lengths[first:row], self.starts[first], names[first]))
                first = row
        return buckets

    @cached_property
    def leading(self) -> dict[str | None, Bucket]:
        """The buckets of virtual tokens, by delta."""
        begins = {self.starts[row] for row in self.leads}
        return {bucket.name: bucket for bucket in self.buckets if bucket.start in begins}

    @cached_property
    def _groups(self) -> dict[tuple[bool, ...], list[Group]]:
        return {}

    def groups(self, alone: Sequence[bool]) -> list[Group]:
        """Put buckets of equal length together, also across deltas: rows in a block do not touch each other.

        Args:
            alone: per bucket, whether it must stay by itself.
        Returns:
            Groups in the order of their first bucket.
        """
        key = tuple(alone)
        if key not in self._groups:
            found: dict[tuple[int, int], list[int]] = {}
            for number, (bucket, by_itself) in enumerate(zip(self.buckets, alone, strict=True)):
                found.setdefault((bucket.length, number if by_itself else -1), []).append(number)
            self._groups[key] = [Group.of(numbers, self.buckets) for numbers in found.values()]
        return self._groups[key]

    @cached_property
    def _sights(self) -> dict[Any, Sight]:
        return {}

    def sight(self, prefixes: Mapping[str | None, int], device: torch.device) -> Sight:
        """Lay out which keys each row sees; the layers of a pass ask for the same.

        Args:
            prefixes: tokens that are given in front of rows, by the rows' name here. [tokens]
            device: of the tensors.
        Returns:
            Where queries and keys lie.
        """
        key = tuple(prefixes.items()), device
        if key not in self._sights:
            names = self.names or (None,) * self.rows
            self._sights[key] = sight_of(self.lengths, names, self.leads, prefixes, device)
        return self._sights[key]

    def positions(self, offset: int = 0) -> Tensor:
        """Positions that restart with every row.

        Args:
            offset: position of a row's first token.
        Returns:
            (N,), int64.
        """
        return torch.cat([torch.arange(offset, offset + length) for length in self.lengths])

    def padded_mask(self) -> Tensor:
        """Which cells of a padded (R, T) batch hold a token.

        Returns:
            (R, T), bool, T the longest row.
        """
        lengths = torch.tensor(self.lengths)
        return torch.arange(max(self.lengths))[None, :] < lengths[:, None]


@dataclass(frozen=True)
class RaggedBatch:
    """Rows of token ids without padding.

    Args:
        ids: (N,), int64, the tokens of all rows one after another.
        layout: where each row lies.
        index: (R,), int64, which example each row is; rows are ordered by length, not by example.
        labels: (R,) or None, one label id per row, in row order; (R, C) where probabilities are learned.
        segments: (N,) or None, token type ids where the tokenizer makes them.
        learned: (N,) bool or None, the tokens that a language model learns to predict.
        hidden: (N,) or None, what stands at the learned tokens where the model reads something else.
        weights: (R,) or None, factor of each row's loss.
    """

    ids: Tensor
    layout: Layout
    index: Tensor
    labels: Tensor | None = None
    segments: Tensor | None = None
    learned: Tensor | None = None
    hidden: Tensor | None = None
    weights: Tensor | None = None

    @cached_property
    def places(self) -> Tensor:
        """(M,), int64, where the learned tokens are."""
        assert self.learned is not None
        return self.learned.nonzero()[:, 0]

    @cached_property
    def targets(self) -> Tensor:
        """(M,), what is to be predicted at the learned tokens."""
        return (self.ids if self.hidden is None else self.hidden)[self.places]

    @cached_property
    def items(self) -> list[int]:
        """Per row, how much of it is learned: one label, or so many tokens. [count]"""
        if self.learned is None:
            return [1] * self.layout.rows
        return [int(part.sum()) for part in self.learned.split(list(self.layout.lengths))]

    def part(self, first: int, last: int) -> RaggedBatch:
        """Return neighbouring rows as a batch of their own.

        Args:
            first: row it begins with.
            last: row after its end.
        Returns:
            The rows, without names.
        """
        if self.layout.names is None and (first, last) == (0, self.layout.rows):
            return self
        start, end = self.layout.starts[first], self.layout.starts[last]
        return RaggedBatch(
            ids=self.ids[start:end],
            layout=Layout(self.layout.lengths[first:last]),
            index=self.index[first:last],
            labels=None if self.labels is None else self.labels[first:last],
            segments=None if self.segments is None else self.segments[start:end],
            learned=None if self.learned is None else self.learned[start:end],
            hidden=None if self.hidden is None else self.hidden[start:end],
            weights=None if self.weights is None else self.weights[first:last],
        )

    def to(self, device: torch.device) -> RaggedBatch:
        """Return the batch with its tensors on a device.

        Args:
            device: where to.
        Returns:
            A new batch, or the same one when nothing moves.
        """
        if self.ids.device == device:
            return self
        there: dict[str, Any] = {
            field.name: moved(value, device)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        found = replace(self, **there)
        if self.learned is not None:  # counted here: a device that is asked would have to finish its work first
            known = {"items": self.items, "places": moved(self.places, device), "targets": moved(self.targets, device)}
            found.__dict__.update(known)
        found.__dict__["_origin"] = self.here
        return found

    @property
    def here(self) -> RaggedBatch:
        """The batch on the CPU: what is read off its numbers there makes no GPU wait."""
        origin: RaggedBatch | None = self.__dict__.get("_origin")
        return self.to(torch.device("cpu")) if origin is None else origin


def ragged(
    rows: Sequence[Sequence[int] | Tensor],
    index: Sequence[int] | None = None,
    labels: Sequence[int | list[float]] | None = None,
    names: Sequence[str | None] | None = None,
    learned: Sequence[Any] | None = None,
    hidden: Sequence[Any] | None = None,
    weights: Sequence[float] | None = None,
) -> RaggedBatch:
    """Make a ragged batch; rows are sorted by delta, then by length so that attention meets few groups.

    Args:
        rows: token ids of each row, none empty.
        index: which example each row is; 0, 1, ... when None.
        labels: one label id, or C probabilities, per row, in the order of `rows`.
        names: one delta name (or None) per row, in the order of `rows`.
        learned: per row, which of its tokens are learned, (T,) bool, in the order of `rows`.
        hidden: per row, the tokens that are to be predicted, (T,), where the model reads others.
        weights: factor of each row's loss, in the order of `rows`.
    Returns:
        The batch; `index` says which row came from where.
    Example:
        >>> ragged([[5, 6, 7], [8]]).ids.tolist()
        [8, 5, 6, 7]
    """
    order = sorted(range(len(rows)), key=lambda i: (names[i] or "" if names else "", len(rows[i])))
    index = range(len(rows)) if index is None else index
    ids = torch.cat([torch.as_tensor(rows[i], dtype=torch.int64) for i in order])
    return RaggedBatch(
        ids=ids,
        layout=Layout(tuple(len(rows[i]) for i in order), tuple(names[i] for i in order) if names else None),
        index=torch.tensor([index[i] for i in order]),
        labels=None if labels is None else torch.tensor([labels[i] for i in order]),
        learned=None if learned is None else torch.cat([torch.as_tensor(learned[i], dtype=torch.bool) for i in order]),
        hidden=None if hidden is None else torch.cat([torch.as_tensor(hidden[i], dtype=torch.int64) for i in order]),
        weights=None if weights is None else torch.tensor([weights[i] for i in order], dtype=torch.float64),
    )
