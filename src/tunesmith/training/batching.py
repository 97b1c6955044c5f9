"""Rows of splits put into batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from tunesmith.models.layout import RaggedBatch, ragged
from tunesmith.training.corpus import Split

if TYPE_CHECKING:
    from tunesmith.data.tokens import Seen

_PASS = 512, 1024  # fewest and most tokens that go through a CPU at once: more hold memory and are no faster
_PASS_BYTES = 2**27  # that a pass on a CPU may keep where it has more than the fewest tokens


class Sent(NamedTuple):
    """Rows of one split that a step sends through the base.

    Args:
        split: they are of.
        numbers: of the rows.
        draw: of what is drawn at random in the rows themselves.
        name: of the delta that they go to.
    """

    split: Split
    numbers: list[int]
    draw: int
    name: str


def batch_of(split: Split, numbers: list[int], draw: int = 0) -> RaggedBatch:
    """Put rows of a split into a batch.

    Args:
        split: any.
        numbers: which of its rows.
        draw: of what is drawn at random, as the epoch.
    Returns:
        The batch, with labels or learned tokens.
    """
    return joined([(split, numbers, draw)])


def joined(parts: Sequence[tuple[Split, list[int], int]], names: Sequence[str] | None = None) -> RaggedBatch:
    """Put rows of several splits into one batch.

    Args:
        parts: splits of one kind, which of their rows, and the draw of what is drawn at random.
        names: of each part's delta; None for rows of the active one.
    Returns:
        The batch, with labels or learned tokens.
    """
    places = [(split, number) for split, numbers, _ in parts for number in numbers]
    seen = [split.tokens.seen(number, draw) for split, numbers, draw in parts for number in numbers]
    owners = None if names is None else [name for name, part in zip(names, parts, strict=True) for _ in part[1]]
    labels = [split.taught(number, one.shares) for (split, number), one in zip(places, seen, strict=True)]
    weights = None
    if any(getattr(split, "weights", None) is not None for split, _, _ in parts):
        weights = [1.0 if split.weights is None else float(split.weights[number]) for split, number in places]
    return seen_together(seen, [number for _, number in places], labels, owners, weights)


def seen_together(
    rows: Sequence[Seen],
    numbers: Sequence[int],
    labels: Sequence[int | list[float]] | None = None,
    names: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
) -> RaggedBatch:
    """Put rows into a batch.

    Args:
        rows: as the model reads them.
        numbers: of the rows.
        labels: of the rows, or C probabilities each; used where no tokens are learned.
        names: of each row's delta.
        weights: factor of each row's loss; None where all weigh the same.
    Returns:
        The batch, with labels or learned tokens.
    """
    whole, plain = rows[0].learned is None, rows[0].hidden is None
    return ragged(
        [torch.from_numpy(row.ids) for row in rows],
        numbers,
        labels if whole else None,
        names,
        None if whole else [row.learned for row in rows],
        None if plain else [row.hidden for row in rows],
        weights,
    )


def usual_pass(token_bytes: float) -> int:
    """Return most tokens that go through a CPU at once.

    Args:
        token_bytes: that a pass keeps per token; 0 where that was not measured. [bytes]
    Returns:
        Their number. [tokens]
    """
    fewest, most = _PASS
    return max(fewest, min(most, int(_PASS_BYTES / token_bytes))) if token_bytes else most


def cut_by_length(lengths: Sequence[int], limit: int) -> list[list[int]]:
    """Cut rows into passes of like lengths.

    Args:
        lengths: of the rows' own tokens; what they share would run again in every further pass. [tokens]
        limit: most of them in a pass. [tokens]
    Returns:
        Places of the rows of each pass; at least one row each.
    """
    found: list[list[int]] = []
    room = 0
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not found or lengths[place] > room:
            found.append([])
            room = limit
        found[-1].append(place)
        room -= lengths[place]
    return found
