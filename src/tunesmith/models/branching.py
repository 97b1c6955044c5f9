"""Rows that go on in several ways: what a row begins with, and the tokens of every way behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from tunesmith.models.layout import RaggedBatch, ragged

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


def offsets(ends: Ends) -> list[int]:
    """Say which of a row's states is the first of each ending; number 0 is the row's own.

    Args:
        ends: token sequences.
    Returns:
        One number per ending.
    """
    return [1 + before for before in accumulate((len(end) for end in ends), initial=0)][:-1]
