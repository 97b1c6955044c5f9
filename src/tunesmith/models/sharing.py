"""A prompt that all rows begin with runs once: its tokens become a row of their own that the others see."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from tunesmith.models.layout import Layout, RaggedBatch

_LEAST = 8  # common tokens: fewer are not worth a row of their own
_SAVED = 0.05  # share of the batch's tokens that must be saved


@dataclass(frozen=True)
class Shared:
    """A batch with its common beginnings taken out.

    Args:
        batch: for each delta, a leading row with what its rows have in common, then the rest of each row.
        positions: (n,), of its tokens.
        places: (N,), where each token of the whole batch is now.
    """

    batch: RaggedBatch
    positions: Tensor
    places: Tensor


def share_prompt(batch: RaggedBatch) -> Shared | None:
    """Find what the rows of each delta begin with, and take it out of all but one.

    Args:
        batch: R rows.
    Returns:
        The shorter batch; None when too little would be saved.
    """
    lengths, starts = batch.layout.lengths, batch.layout.starts
    names = batch.layout.names or (None,) * batch.layout.rows
    sizes: list[int] = []  # of the new rows
    owners: list[str | None] = []
    leads: list[int] = []
    ids: list[Tensor] = []
    positions: list[Tensor] = []
    places: list[Tensor] = []
    begin, row = 0, 0
    for name, group in groupby(names):
        rows = range(row, row + len(list(group)))
        row = rows.stop
        same = common(batch, rows)
        if same:
            leads.append(len(sizes))
            sizes.append(same)
            ids.append(batch.ids[starts[rows[0]] : starts[rows[0]] + same])
            positions.append(torch.arange(same))
        lead, begin = begin, begin + same
        for number in rows:
            rest = lengths[number] - same
            ids.append(batch.ids[starts[number] + same : starts[number + 1]])
            positions.append(torch.arange(same, lengths[number]))
            places += [torch.arange(lead, lead + same), torch.arange(begin, begin + rest)]
            sizes.append(rest)
            begin += rest
        owners += [name] * (len(sizes) - len(owners))
    if batch.layout.tokens - begin < _SAVED * batch.layout.tokens or not leads:
        return None
    named = None if batch.layout.names is None else tuple(owners)
    short = RaggedBatch(torch.cat(ids), Layout(tuple(sizes), named, tuple(leads)), batch.index)
    device = batch.ids.device
    return Shared(short, torch.cat(positions).to(device), torch.cat(places).to(device))


def common(batch: RaggedBatch, rows: range) -> int:
    """Count the tokens that rows begin with in common; every row keeps at least one of its own.

    Args:
        batch: that they stand in.
        rows: which, neighbours.
    Returns:
        How many; 0 when they are not worth a row of their own. [count]
    """
    lengths, starts = batch.layout.lengths, batch.layout.starts
    most = min(lengths[row] for row in rows) - 1
    if len(rows) < 2 or most < _LEAST:
        return 0
    table = torch.stack([batch.ids[starts[row] : starts[row] + most] for row in rows])
    same = int((table == table[0]).all(0).long().cumprod(0).sum())
    return same if same >= _LEAST else 0
