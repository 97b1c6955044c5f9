"""Which keys the rows of a flat batch see, laid out for kernels that take rows of any length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

Names = Sequence[str | None]


@dataclass(frozen=True)
class Front:
    """What rows of one delta see in front of their own tokens.

    Args:
        name: of the rows in the layout.
        places: (rows * P,), int64, where it stands among the keys.
        rows: that see it. [count]
        lead: tokens of the batch that it is; None where a prefix is given.
    """

    name: str | None
    places: Tensor
    rows: int
    lead: slice | None


@dataclass(frozen=True)
class Sight:
    """Where each row's queries and keys lie.

    Args:
        queries: (R + 1,), int32, where each row's queries begin, and N.
        keys: (R + 1,), int32, where each row's keys begin, and S.
        longest: queries of the longest row, and the most keys that a row sees. [tokens]
        count: S, all keys. [count]
        own: (N,), int64, where the batch's own tokens stand among the keys; None when they are all of them.
        fronts: what else stands there.
    """

    queries: Tensor
    keys: Tensor
    longest: tuple[int, int]
    count: int
    own: Tensor | None
    fronts: tuple[Front, ...]

    @property
    def bounds(self) -> tuple[Tensor, Tensor, int, int]:
        """Where rows begin and how long they are, in the order in which kernels ask for it."""
        return self.queries, self.keys, *self.longest

    def seen(self, own: Tensor, given: Sequence[Tensor]) -> Tensor:
        """Lay out what the rows see.

        Args:
            own: the batch's keys or values, (N, H, d).
            given: what stands in front of rows and not in the batch, in the order of the fronts, (P, H, d) each.
        Returns:
            (S, H, d), row after row.
        """
        if self.own is None:
            return own
        found, rest = own.new_empty(self.count, *own.shape[1:]), iter(given)
        found.index_copy_(0, self.own, own)
        for front in self.fronts:
            part = next(rest) if front.lead is None else own[front.lead]
            found.index_copy_(0, front.places, part.repeat(front.rows, 1, 1))
        return found

    def seen_back(self, grad: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Undo `seen` in a gradient; sums run in one order, so that equal runs give equal bits.

        Args:
            grad: (S, H, d).
        Returns:
            Of the batch's own, (N, H, d), and of what was given.
        """
        if self.own is None:
            return grad, []
        own, given = grad.index_select(0, self.own), list[Tensor]()
        for front in self.fronts:
            part = grad.index_select(0, front.places).view(front.rows, -1, *grad.shape[1:]).sum(0)
            if front.lead is None:
                given.append(part)
            else:
                own[front.lead] += part
        return own, given


def sight_of(
    lengths: Sequence[int], names: Names, leads: Sequence[int], prefixes: Mapping[str | None, int], device: torch.device
) -> Sight:
    """Lay out which keys each row sees.

    Args:
        lengths: of the rows. [tokens]
        names: the delta of each row.
        leads: rows of tokens that the other rows of their delta see, behind its prefix.
        prefixes: tokens that are given in front of a delta's rows. [tokens]
        device: of the answer.
    Returns:
        The layout of queries and keys.
    """
    own_lead = {names[row]: row for row in leads}
    begins = [0, *accumulate(lengths)]
    seen: dict[tuple[str | None, bool], list[int]] = {}  # rows by what stands before them
    before: list[int] = []
    for row, name in enumerate(names):
        led = own_lead.get(name, row) != row
        before.append(prefixes.get(name, 0) + (lengths[own_lead[name]] if led else 0))
        if before[-1]:
            seen.setdefault((name, led), []).append(row)
    sizes = [front + own for front, own in zip(before, lengths, strict=True)]
    starts = [0, *accumulate(sizes)]
    fronts = []
    for (name, led), rows in seen.items():
        first, given = torch.tensor([starts[row] for row in rows])[:, None], prefixes.get(name, 0)
        places = (first + torch.arange(before[rows[0]])).to(device)  # (rows, P)
        if given:
            fronts.append(Front(name, places[:, :given].reshape(-1), len(rows), None))
        if led:
            lead = slice(begins[own_lead[name]], begins[own_lead[name] + 1])
            fronts.append(Front(name, places[:, given:].reshape(-1), len(rows), lead))
    own = None
    if fronts:
        shifts = torch.tensor(starts[:-1]) + torch.tensor(before) - torch.tensor(begins[:-1])
        own = (shifts.repeat_interleave(torch.tensor(lengths)) + torch.arange(begins[-1])).to(device)
    queries, keys = (torch.tensor(part, dtype=torch.int32).to(device) for part in (begins, starts))
    return Sight(queries, keys, (max(lengths), max(sizes)), starts[-1], own, tuple(fronts))
