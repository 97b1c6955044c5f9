"""The last block runs to its end for those tokens only whose hidden states are read.

Attention looks at all tokens. What follows it in the last block works on each token by itself: the map behind
attention, norms, the feed-forward maps. Where a head reads one token of each row, three quarters of a block are saved;
where it reads the answers alone, the share of the questions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.models.attention import Attended, flat_rows
from tunesmith.models.layout import Layout
from tunesmith.models.placing import moved
from tunesmith.models.recomputing import put_back
from tunesmith.models.seams import Seams
from tunesmith.models.structure import stacks

_MOST = (
    0.75  # share of the tokens that are read: beyond it their second run through the maps before attention costs more
)


@dataclass(frozen=True)
class Read:
    """Which tokens of a flat batch are read.

    Args:
        places: (m,), rising.
        layout: of these tokens: as many per row as are read, rows without any left out.
        order: (M,), which of them each wanted one is.
    """

    places: Tensor
    layout: Layout
    order: Tensor


def read_tokens(layout: Layout, wanted: Tensor, device: torch.device) -> Read | None:
    """Sort out which tokens of a batch are read.

    Args:
        layout: of all tokens.
        wanted: (M,), which tokens, in any order, some more than once; a GPU waits for what is on it.
        device: of the batch.
    Returns:
        They; None for no token, and for so many that leaving the others out does not pay.
    """
    places, order = wanted.unique(return_inverse=True)
    if not 0 < len(places) <= _MOST * layout.tokens:
        return None
    ends = torch.tensor(layout.starts[1:], device=places.device)
    counts = torch.searchsorted(ends, places, right=True).bincount(minlength=layout.rows).tolist()
    names = None if layout.names is None else tuple(n for n, some in zip(layout.names, counts, strict=True) if some)
    return Read(moved(places, device), Layout(tuple(some for some in counts if some), names), moved(order, device))


class Ending:
    """The last block of an opened model.

    Args:
        seams: of the model.
        block: after which nothing but a norm follows.
    """

    def __init__(self, seams: Seams, block: nn.Module) -> None:
        self.seams, self.block = seams, block

    @contextmanager
    def reading(self, read: Read) -> Iterator[None]:
        """Let the block give only some tokens' states, (m, D), in the forward passes inside the block.

        Args:
            read: which.
        """
        own = self.block.__dict__.get("forward")
        self.block.forward = self._short(self.block.forward, read)
        try:
            yield
        finally:
            put_back(self.block, own)

    def _short(self, run: Callable[..., Any], read: Read) -> Callable[..., Any]:
        def forward(*args: Any, **settings: Any) -> Any:
            routing, attending, places = self.seams.routing, self.seams.attending, read.places
            whole, names = routing.layout, None if routing.names is None else read.layout.names
            assert whole is not None
            with attending.stopping():
                try:
                    run(*args, **settings)
                except Attended as reached:
                    found = reached.output
            some = [_taken(value, whole.tokens, places) for value in args]
            named = {key: _taken(value, whole.tokens, places) for key, value in settings.items()}
            answer = found.index_select(1, places)
            with flat_rows(routing, read.layout), routing.rows(names), attending.answering(answer):
                return run(*some, **named)

        return forward


def _taken(value: Any, tokens: int, places: Tensor) -> Any:
    """Take some tokens of what a block is given: (1, N, ...) or (N,)."""
    if isinstance(value, tuple | list):
        return type(value)(_taken(item, tokens, places) for item in value)
    if isinstance(value, Mapping):
        return {key: _taken(item, tokens, places) for key, item in value.items()}
    if not isinstance(value, Tensor):
        return value
    if value.dim() > 1 and value.shape[:2] == (1, tokens):
        return value.index_select(1, places)
    return value[places] if value.shape == (tokens,) else value


def last_block(body: nn.Module, seams: Seams) -> Ending | None:
    """Find the block that a model ends with.

    Args:
        body: the part of a model that gives hidden states.
        seams: of the model.
    Returns:
        It; None for a model that is not one stack of blocks. Whether it may end early is to be proved.
    """
    found = stacks(body)
    return Ending(seams, body.get_submodule(found[0][-1])) if len(found) == 1 else None


def row_ends(layout: Layout, how: str) -> Tensor | None:
    """Say which tokens a way of pooling reads.

    Args:
        layout: of R rows.
        how: "cls" (first token), "last" or another, which reads all.
    Returns:
        (R,), or None for all tokens.
    """
    if how not in ("cls", "last"):
        return None
    starts = torch.tensor(layout.starts)
    return starts[:-1] if how == "cls" else starts[1:] - 1
