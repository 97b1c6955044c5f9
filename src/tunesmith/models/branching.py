"""Rows that go on in several ways: what a row begins with, and the tokens of every way behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from tunesmith.models.layout import Layout, RaggedBatch, ragged

Ends = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Branches:
    """Every row of a batch followed by every one of some endings.

    Args:
        batch: R * max(1, K) rows.
        places: (R * P,), where each row's last token is, then the tokens of its endings one after another.
    """

    batch: RaggedBatch
    places: Tensor


def branch(batch: RaggedBatch, ends: Ends) -> Branches:
    """Write every row out with every ending.

    Args:
        batch: R rows.
        ends: K token sequences, none empty; without any, the rows stay as they are.
    Returns:
        The longer batch; P = 1 + the tokens of all endings.
    """
    rows = batch.ids.split(list(batch.layout.lengths))
    tails = [batch.ids.new_tensor(end) for end in ends] or [batch.ids[:0]]
    names = batch.layout.names
    owners = None if names is None else [name for name in names for _ in tails]
    wide = ragged([torch.cat([row, tail]) for row in rows for tail in tails], names=owners)
    starts = torch.zeros(wide.layout.rows, dtype=torch.int64)
    starts[wide.index] = torch.tensor(wide.layout.starts[:-1])
    places = []
    for number, row in enumerate(rows):
        own = starts[number * len(tails) : (number + 1) * len(tails)] + len(row)
        places.append(own[:1] - 1)
        places += [start + torch.arange(len(tail)) for start, tail in zip(own, tails, strict=True)]
    return Branches(wide, torch.cat(places))


@dataclass(frozen=True)
class Fork:
    """Rows that run once, and behind each of them its endings, which see it.

    Args:
        batch: for each row one of its own, then its endings; names say which belong together.
        positions: (n,), of its tokens.
        places: (R * P,), as in `Branches`.
    """

    batch: RaggedBatch
    positions: Tensor
    places: Tensor


def fork(batch: RaggedBatch, ends: Ends, same: int) -> Fork:
    """Let every row go on with every one of some endings, without writing it out for each.

    Args:
        batch: R rows of one delta.
        ends: token sequences, none empty, at least one.
        same: tokens that all rows begin with and that are left out. [tokens]
    Returns:
        The forked batch.
    """
    order = sorted(range(len(ends)), key=lambda number: len(ends[number]))
    rows = [row[same:] for row in batch.ids.split(list(batch.layout.lengths))]
    sizes, names, leads = list[int](), list[str](), list[int]()
    ids, positions, places, begin = list[Tensor](), list[Tensor](), list[Tensor](), 0
    for number, row in enumerate(rows):
        leads.append(len(sizes))
        pieces = [row, *(row.new_tensor(ends[way]) for way in order)]
        starts = [begin, *(begin + before for before in accumulate(map(len, pieces)))]
        firsts = [same, *[same + len(row)] * len(ends)]
        positions += [torch.arange(first, first + len(piece)) for first, piece in zip(firsts, pieces, strict=True)]
        own = dict(zip(order, starts[1:-1], strict=True))
        places.append(torch.tensor([starts[1] - 1]))
        places += [torch.arange(own[way], own[way] + len(end)) for way, end in enumerate(ends)]
        sizes += map(len, pieces)
        names += [f"row {number}"] * len(pieces)
        ids += pieces
        begin = starts[-1]
    layout = Layout(tuple(sizes), tuple(names), tuple(leads))
    device = batch.ids.device
    forked = RaggedBatch(torch.cat(ids), layout, batch.index)
    return Fork(forked, torch.cat(positions).to(device), torch.cat(places).to(device))


def offsets(ends: Ends) -> list[int]:
    """Say which of a row's states is the first of each ending; number 0 is the row's own.

    Args:
        ends: token sequences.
    Returns:
        One number per ending.
    """
    return [1 + before for before in accumulate((len(end) for end in ends), initial=0)][:-1]
