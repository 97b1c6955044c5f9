"""A prompt that all rows begin with runs once: its tokens become a row of their own that the others see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn

from tunesmith.models.layout import Layout, RaggedBatch
from tunesmith.models.prefixed import Prefix

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
    ids = batch.here.ids
    table = torch.stack([ids[starts[row] : starts[row] + most] for row in rows])
    same = int((table == table[0]).all(0).long().cumprod(0).sum())
    return same if same >= _LEAST else 0


def read_of_prompt(batch: RaggedBatch, same: int) -> Tensor:
    """Say which of the tokens that rows begin with in common are read: those that learned ones are predicted from.

    Args:
        batch: R rows.
        same: tokens that they begin with in common.
    Returns:
        (M,), rising; the last of these tokens is always there, and all where the batch does not say what is learned.
    """
    known = batch.here.learned
    if known is None:
        return torch.arange(same)
    read = torch.arange(same) == same - 1
    for start, length in zip(batch.layout.starts, batch.layout.lengths, strict=False):
        learned = known[start + 1 : start + 1 + min(same, length - 1)]
        read[: len(learned)] |= learned
    return read.nonzero()[:, 0]


@dataclass
class Lead:
    """A prompt that ran once for all passes of a step: what it leaves, cut off so that gradients gather in it.

    Args:
        hidden: (P, D), last hidden states of its tokens; zeros where nobody reads them.
        prefixes: keys and values that it leaves in every attention layer, (H or fewer, P, d) each.
        roots: the same tensors, hidden first, with the graph that made them.
    """

    hidden: Tensor
    prefixes: dict[nn.Module, Prefix]
    roots: list[Tensor]

    @classmethod
    def of(cls, hidden: Tensor, prefixes: dict[nn.Module, Prefix]) -> Lead:
        """Cut a prompt off from what will see it.

        Args:
            hidden: (P, D), with gradients.
            prefixes: with gradients.
        Returns:
            The lead.
        """
        roots = [hidden, *(part for pair in prefixes.values() for part in pair)]
        leaves = [root.detach().requires_grad_(root.requires_grad) for root in roots]
        pairs = zip(leaves[1::2], leaves[2::2], strict=True)
        return cls(leaves[0], dict(zip(prefixes, pairs, strict=True)), roots)

    @property
    def tokens(self) -> int:
        """P. [count]"""
        return len(self.hidden)

    def finish(self) -> None:
        """Send the gathered gradients back through the prompt."""
        leaves = [self.hidden, *(part for pair in self.prefixes.values() for part in pair)]
        seen = [(root, leaf.grad) for root, leaf in zip(self.roots, leaves, strict=True) if leaf.grad is not None]
        if seen:
            torch.autograd.backward([root for root, _ in seen], [grad for _, grad in seen])


def behind(batch: RaggedBatch, leads: Mapping[str | None, Lead]) -> Shared:
    """Take the prompts that already ran out of a batch.

    Args:
        batch: R rows; each begins with its delta's prompt and goes on.
        leads: by delta; None for rows of the active one.
    Returns:
        The rest of the rows; places count from the first hidden state of the first lead, the rest after all of them.
    """
    starts, lengths = batch.layout.starts, batch.layout.lengths
    names = batch.layout.names or (None,) * batch.layout.rows
    begins, end = dict[str | None, int](), 0
    for name, lead in leads.items():
        begins[name], end = end, end + lead.tokens
    ids, positions, places, sizes = list[Tensor](), list[Tensor](), list[Tensor](), list[int]()
    for row, name in enumerate(names):
        same = leads[name].tokens
        rest = lengths[row] - same
        ids.append(batch.ids[starts[row] + same : starts[row + 1]])
        positions.append(torch.arange(same, lengths[row]))
        places += [torch.arange(begins[name], begins[name] + same), torch.arange(end, end + rest)]
        sizes.append(rest)
        end += rest
    device = batch.ids.device
    short = RaggedBatch(torch.cat(ids), Layout(tuple(sizes), batch.layout.names), batch.index)
    return Shared(short, torch.cat(positions).to(device), torch.cat(places).to(device))
