"""Blocks that run a second time for their gradients: of the first run only their inputs are kept.

The second run repeats the first exactly: the same deltas for the same rows, the same soft prompts, the same dropout.
It costs one more forward pass and leaves, per token, one hidden state per block and what a single block keeps.
Source: Chen et al. 2016, "Training deep nets with sublinear memory cost".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tunesmith.models.attention import flat_rows
from tunesmith.models.seams import Seams
from tunesmith.models.structure import stacks

_ROUTED = ("active", "names", "expected", "repeat", "quick")


class Recomputing:
    """The blocks of an opened model that run again.

    Args:
        seams: of the model.
        blocks: that run in turn.
    """

    def __init__(self, seams: Seams, blocks: Sequence[nn.Module]) -> None:
        self.seams, self.blocks = seams, list(blocks)

    @contextmanager
    def passes(self) -> Iterator[None]:
        """Let the blocks keep only their inputs in the forward passes inside the block."""
        with ExitStack() as undo:
            for block in self.blocks:
                undo.callback(put_back, block, block.__dict__.get("forward"))
                block.forward = self._sparing(block.forward)
            yield

    def _sparing(self, run: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, **settings: Any) -> Any:
            if not torch.is_grad_enabled():
                return run(*args, **settings)
            again = _Again(self.seams)
            return checkpoint(run, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), again), **settings)

        return forward


def recomputing(seams: Seams, body: nn.Module) -> Recomputing | None:
    """Find the blocks of a model that may run again.

    Args:
        seams: of the model.
        body: the part of it that is made of blocks.
    Returns:
        Them; None for a model that is not stacked.
    """
    blocks = [body.get_submodule(path) for stack in stacks(body) for path in stack]
    return Recomputing(seams, blocks) if blocks else None


class _Again:
    """What a block's first run found around it; as a context, it is found again."""

    def __init__(self, seams: Seams) -> None:
        routing = seams.routing
        self._seams, self._prefixes = seams, seams.attending.prefixes
        self._swapped, self._layout = routing.swapped, routing.layout
        self._routed = {name: getattr(routing, name) for name in _ROUTED}
        self._drawn = {name: source.state for name, source in seams.streams().items()}

    def __enter__(self) -> None:
        seams, routing = self._seams, self._seams.routing
        with ExitStack() as undo:
            undo.callback(self._restore, routing.swapped, {name: getattr(routing, name) for name in _ROUTED})
            self._restore(self._swapped, self._routed)
            streams = seams.streams()
            for name, state in self._drawn.items():
                undo.callback(setattr, streams[name], "state", streams[name].state)
                streams[name].state = state
            undo.enter_context(seams.attending.prefixed(self._prefixes))
            undo.enter_context(seams.attending.silent())
            undo.enter_context(nullcontext() if self._layout is None else flat_rows(routing, self._layout))
            self._undo = undo.pop_all()

    def __exit__(self, *error: object) -> None:
        self._undo.close()

    def _restore(self, swapped: str | None, routed: dict[str, Any]) -> None:
        routing = self._seams.routing
        if swapped != routing.swapped:
            routing.active = routing.swapped
            self._seams.use(swapped)
        for name, value in routed.items():
            setattr(routing, name, value)


def put_back(module: nn.Module, own: Any) -> None:
    """Give a module back the forward that it held itself, or none.

    Args:
        module: whose forward something stood in for.
        own: what it held before; None for its class's.
    """
    if own is not None:
        module.forward = own
    else:
        module.__dict__.pop("forward", None)
