"""Several tuned deltas of one model that answer together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunesmith.core.arrays import Array
from tunesmith.data.tokens import TokenRows
from tunesmith.models.backbone import Backbone, length_sorted
from tunesmith.models.delta import Delta
from tunesmith.models.depth import Depth, frozen_blocks, row_keys
from tunesmith.models.layout import ragged
from tunesmith.models.row_store import RowStore
from tunesmith.tasks.running import PASS, probabilities
from tunesmith.tasks.tuned import Tuned


@dataclass
class Ensemble(Tuned):
    """Members whose answers are put together; their rows go through the base in one pass.

    Args:
        backbone: the opened model that all share.
        task: of all.
        head: of the first member.
        delta: of the first member.
        members: all of them, the first among them.
        combine: the combination that makes one answer of theirs.
        learned: what it learned from the rows that choose.
    """

    members: list[Tuned] = field(default_factory=list)
    combine: Any = None
    learned: Mapping[str, Array] = field(default_factory=dict)

    @classmethod
    def of(cls, members: Sequence[Tuned], combine: Any, learned: Mapping[str, Array]) -> Tuned:
        """Put members together.

        Args:
            members: at least one, of one model.
            combine: makes one answer of theirs.
            learned: by it.
        Returns:
            The only member, or an ensemble.
        """
        first = members[0]
        if len(members) == 1:
            return first
        return cls(first.backbone, first.task, first.head, first.delta, list(members), combine, learned)

    def train(self, training: bool) -> None:
        """Switch dropout on or off everywhere.

        Args:
            training: True for a training step.
        """
        for member in self.members:
            member.train(training)

    def probabilities(self, tokens: TokenRows) -> Tensor:
        """Answer many rows.

        Args:
            tokens: the rows.
        Returns:
            (rows, C), float64, on the CPU.
        """
        return torch.from_numpy(self.combine.answer(answers(self.members, tokens), self.learned))


def answers(members: Sequence[Tuned], tokens: TokenRows) -> Array:
    """Let members answer rows, all in one pass over the base they share.

    Args:
        members: of one model.
        tokens: the rows.
    Returns:
        (K, rows, C), probabilities; of rows in several wordings the mean over them.
    """
    found = [_features(members, rows) for rows in tokens.wordings]
    tables = [
        torch.stack([probabilities(member.head, features[place]) for features in found]).mean(0)
        for place, member in enumerate(members)
    ]
    return np.stack([table.numpy() for table in tables])


@torch.no_grad()
def _features(members: Sequence[Tuned], tokens: TokenRows) -> Tensor:
    """Compute what the members' heads read, (K, rows, D), on the CPU; every row is routed to each member.

    Blocks below all deltas run once per row.
    """
    backbone, task = members[0].backbone, members[0].task
    names = [member.delta.name for member in members]
    places = {name: place for place, name in enumerate(names)}
    training = backbone.model.training
    backbone.model.eval()
    shared = _shared([member.delta for member in members], backbone)
    found: Tensor | None = None
    limit, most = (max(1, part // len(members)) for part in PASS)
    for numbers in length_sorted(tokens.lengths.tolist(), limit, most):
        rows = [torch.from_numpy(tokens[number]) for number in numbers]
        owners = [name for name in names for _ in numbers]
        batch = ragged(rows * len(names), numbers * len(names), names=owners)
        with _once(shared, rows, backbone), backbone.seams.route(batch.layout.names or owners):
            read = task.read(backbone, batch).float().cpu()
        if found is None:
            found = read.new_empty(len(names), len(tokens), read.shape[-1])
        owner = torch.tensor([places[name or ""] for name in batch.layout.names or ()])
        found[owner, batch.index.cpu()] = read
    backbone.model.train(training)
    assert found is not None
    return found


def _shared(deltas: Sequence[Delta], backbone: Backbone) -> Depth | None:
    """Find the blocks below all deltas; None where there are none, or what they give is kept already."""
    blocks, _ = frozen_blocks(backbone, deltas, training=False)
    if not blocks or backbone.below is not None:
        return None
    store = RowStore([], backbone.width, next(backbone.model.parameters()).dtype)
    return Depth(backbone, blocks, [delta.name for delta in deltas], store)


@contextmanager
def _once(shared: Depth | None, rows: Sequence[Tensor], backbone: Backbone) -> Iterator[None]:
    """Run rows through the shared blocks, for the pass inside the block, in which each comes once per member."""
    if shared is None:
        yield
        return
    batch = ragged(rows).to(backbone.device)
    shared.store = RowStore(zip(row_keys(batch), batch.layout.lengths, strict=True), backbone.width, shared.store.dtype)
    with backbone.seams.routing.only(None):
        shared.of(batch)
    backbone.below = shared
    try:
        yield
    finally:
        backbone.below = None
