"""Frozen layers below the first delta: what they give for a row is computed once and kept.

Blocks that no delta touches give the same for a row in every epoch. Training then starts from what the last of them
gave, and only the blocks above it run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.core.errors import RecipeError
from tunesmith.models.backbone import Backbone
from tunesmith.models.delta import Delta
from tunesmith.models.dropout import without_dropout
from tunesmith.models.layout import RaggedBatch, ragged
from tunesmith.models.recomputing import put_back
from tunesmith.models.row_store import RowStore
from tunesmith.models.structure import stacks


class Depth:
    """What the lowest blocks of a model give, row by row.

    Args:
        backbone: opened.
        blocks: the frozen ones, lowest first.
        names: of the deltas, none of which touches them.
        store: of the rows that will come again.
    """

    def __init__(self, backbone: Backbone, blocks: Sequence[nn.Module], names: Sequence[str], store: RowStore) -> None:
        self.backbone, self.blocks, self.store = backbone, list(blocks), store
        self._names = {None, *names}
        self._form: tuple[Any, ...] | None = None  # what follows the hidden states in a block's output
        self._dtype = self._run(_probe(backbone)).dtype

    def of(self, batch: RaggedBatch) -> Tensor | None:
        """Return what the blocks give for a batch; rows that were not seen yet run through them now.

        Args:
            batch: on the model's device.
        Returns:
            (N, D); None where the batch holds rows that will not come again, or a delta that touches the blocks.
        """
        routing = self.backbone.seams.routing
        if not self._names.issuperset(batch.layout.names or (routing.active,)):
            return None
        keys = row_keys(batch)
        if not self.store.knows(keys):
            return None
        first = {key: row for row, key in reversed(list(enumerate(keys)))}  # several deltas may read the same row
        new = sorted(row for key, row in first.items() if key in self.store.missing)
        if new:
            rows = _rows(batch, new)
            self.store.put([keys[row] for row in rows.here.index.tolist()], self._run(rows))
        return self.store.get(keys).to(self.backbone.device, self._dtype)

    @torch.no_grad()
    def _run(self, batch: RaggedBatch) -> Tensor:
        """Run the blocks, and nothing above them; rows of one length keep their order."""
        found: list[Tensor] = []

        def reached(module: nn.Module, given: Any, output: Any) -> None:
            found.append(output[0] if isinstance(output, tuple) else output)
            self._form = tuple(output[1:]) if isinstance(output, tuple) else None
            raise _Reached

        handle = self.blocks[-1].register_forward_hook(reached)
        try:
            with self.backbone.seams.routing.only(None):
                self.backbone.flat(batch)
        except _Reached:
            pass
        finally:
            handle.remove()
        return found[0][0]

    @contextmanager
    def standing_in(self, hidden: Tensor) -> Iterator[None]:
        """Let kept states stand in for the blocks.

        Args:
            hidden: (N, D), from `of`, in the order of the batch that runs inside the block.
        """
        output: Any = hidden[None] if self._form is None else (hidden[None], *self._form)
        with ExitStack() as undo:
            for block in self.blocks:
                own = block.__dict__.get("forward")
                block.forward = lambda *args, **settings: output
                undo.callback(put_back, block, own)
            yield


class _Reached(Exception):
    """The last frozen block has answered."""


def row_keys(batch: RaggedBatch) -> list[bytes]:
    """Tell rows apart by what the model reads.

    Args:
        batch: R rows.
    Returns:
        One key per row.
    """
    lengths = list(batch.layout.lengths)
    parts = [batch.ids] if batch.segments is None else [batch.ids, batch.segments]
    cut = [part.cpu().to(torch.int32).split(lengths) for part in parts]
    return [b"".join(piece.numpy().tobytes() for piece in row) for row in zip(*cut, strict=True)]


def _rows(batch: RaggedBatch, numbers: Sequence[int]) -> RaggedBatch:
    """Take some rows of a batch, without names and so by length alone; `index` says which row each is."""
    parts = {number: batch.part(number, number + 1) for number in numbers}
    taken = ragged([part.ids.cpu() for part in parts.values()], numbers)
    if batch.segments is not None:
        own = [parts[number].segments for number in taken.index.tolist()]
        taken = replace(taken, segments=torch.cat([part for part in own if part is not None]).cpu())
    return taken.to(batch.ids.device)


def frozen_blocks(backbone: Backbone, deltas: Sequence[Delta], training: bool = True) -> tuple[list[nn.Module], str]:
    """Find the blocks below everything that deltas change.

    Args:
        backbone: opened.
        deltas: attached to it.
        training: whether something may be dropped at random.
    Returns:
        The blocks, lowest first, and why there are none: the model is not one stack of blocks that run in turn, a
        delta begins below them, or they drop something at random.
    """
    found = stacks(backbone.body)
    if not backbone.proof.fast or len(found) != 1:
        return [], f"{type(backbone.model).__name__} does not run as one stack of blocks on flat rows"
    if any(delta.prompt is not None for delta in deltas):
        return [], "a soft prompt changes every block"
    blocks = [backbone.body.get_submodule(path) for path in found[0]]
    owners = {path for delta in deltas for path in delta.patches} | {
        path.rpartition(".")[0] for delta in deltas for path in delta.copies
    }
    count = _untouched(backbone, blocks, [backbone.model.get_submodule(path) for path in owners])
    if not count:
        return [], "the first block is trained, or something before it (method.layers: top-half leaves half alone)"
    if training and any(_drops(module) for module in _below(backbone, blocks[count:])):
        why = "training.frozen_dropout: false, or training.dropout: 0, stops that"
        return [], f"the model drops something at random below the first trained block ({why})"
    return blocks[:count], ""


def undropped_below(
    backbone: Backbone, deltas: Sequence[Delta], say: Callable[[str], None]
) -> AbstractContextManager[None]:
    """Let what stands below the first trained block drop nothing.

    Args:
        backbone: opened.
        deltas: attached to it.
        say: told why nothing changes, where no block is frozen.
    Returns:
        For a `with`.
    Raises:
        RecipeError: deltas begin at unlike blocks, so one would drop less than in a run of its own.
    """
    found = [frozen_blocks(backbone, [delta], training=False) for delta in deltas]
    depths = sorted({len(blocks) for blocks, _ in found})
    if len(depths) > 1:
        raise RecipeError(
            f"training.frozen_dropout=false: what trains together begins above {' and '.join(map(str, depths))} frozen "
            "blocks, so some would drop less than alone. Give all the same method.layers, or leave the key out."
        )
    if not depths[0]:
        say(f"training.frozen_dropout: false changes nothing: {found[0][1]}")
        return nullcontext()
    blocks = [backbone.body.get_submodule(path) for path in stacks(backbone.body)[0]]
    return without_dropout(_below(backbone, blocks[depths[0] :]))


def _below(backbone: Backbone, above: Sequence[nn.Module]) -> list[nn.Module]:
    """Return the modules of the body that stand in none of some blocks."""
    inside = {module for block in above for module in block.modules()}
    return [module for module in backbone.body.modules() if module not in inside]


def _untouched(backbone: Backbone, blocks: Sequence[nn.Module], owners: Sequence[nn.Module]) -> int:
    """Count the blocks that have answered before the first changed module is called."""
    begun, ended, first = list[int](), list[int](), [len(blocks)]
    with ExitStack() as undo:
        for number, block in enumerate(blocks):
            before = block.register_forward_pre_hook(lambda *_, number=number: begun.append(number))
            after = block.register_forward_hook(lambda *_, number=number: ended.append(number))
            undo.callback(before.remove)
            undo.callback(after.remove)
        for owner in owners:
            seen = owner.register_forward_pre_hook(lambda *_: first.append(len(ended)))
            undo.callback(seen.remove)
        with torch.no_grad():
            backbone.flat(_probe(backbone))
    once = begun == ended == list(range(len(blocks)))
    return min(first) if once else 0


def _probe(backbone: Backbone) -> RaggedBatch:
    return backbone.three_rows().part(0, 1).to(backbone.device)


def _drops(module: nn.Module) -> bool:
    """Whether a module may drop something at random while it trains."""
    if isinstance(module, nn.Dropout):
        return module.p > 0
    return any("drop" in name and isinstance(rate, float) and rate > 0 for name, rate in vars(module).items())
