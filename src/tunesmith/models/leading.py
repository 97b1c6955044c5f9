"""Virtual tokens of a causal model in the same pass as its rows: one row of them in front of each delta's rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tunesmith.models.attention import flat_rows
from tunesmith.models.inserting import stripped
from tunesmith.models.layout import Layout
from tunesmith.models.soft_prompts import TokenPrompt

if TYPE_CHECKING:
    from tunesmith.models.seams import Seams


class Leading:
    """Puts one row of virtual tokens before the rows of each delta that has some, and takes it out of the answer.

    Attention lets a delta's rows see the keys and values of its leading row, so the virtual tokens are computed once
    for all of them, and need no pass of their own.

    Args:
        seams: of the model.
        prompts: of the deltas in use.
        layout: of the caller's tokens.
    """

    def __init__(self, seams: Seams, prompts: Mapping[str, TokenPrompt], layout: Layout) -> None:
        self.routing = seams.routing
        self.prompts = prompts
        self.layout = layout

    def flat(self, run: Callable[..., Any], embeds: Tensor, values: dict[str, Any]) -> Any:
        """Run a flat batch.

        Args:
            run: the backbone.
            embeds: (1, N, D).
            values: its other arguments by name; position_ids, (1, N), among them.
        Returns:
            Its answer, for the caller's tokens.
        """
        positions, starts = values.pop("position_ids")[0], self.layout.starts
        tokens, places, kept, begin = [], [], [], 0
        for name, first, last in self._stretches():
            own = slice(starts[first], starts[last])
            prompt = self.prompts.get(name or "")
            length = 0 if prompt is None else prompt.length
            if prompt is not None:
                tokens.append(prompt.flat().to(embeds.dtype))
                places.append(positions[own][:1] + torch.arange(length, device=positions.device))
            tokens.append(embeds[0, own])
            places.append(positions[own] + length)
            kept.append(torch.arange(begin + length, begin + length + own.stop - own.start))
            begin += length + own.stop - own.start
        wider = self._wider()
        with flat_rows(self.routing, wider), self.routing.rows(wider.names if self.routing.names else None):
            output = run(inputs_embeds=torch.cat(tokens)[None], position_ids=torch.cat(places)[None], **values)
        return stripped(output, torch.cat(kept).to(embeds.device))

    def _wider(self) -> Layout:
        """Return where all rows lie, leading ones included, and the delta of each."""
        lengths: list[int] = []
        names: list[str | None] = []
        leads: list[int] = []
        for name, first, last in self._stretches():
            prompt = self.prompts.get(name or "")
            if prompt is not None:
                leads.append(len(lengths))
                lengths.append(prompt.length)
            lengths += self.layout.lengths[first:last]
            names += [name] * (len(lengths) - len(names))
        return Layout(tuple(lengths), tuple(names), tuple(leads))

    def _stretches(self) -> Iterator[tuple[str | None, int, int]]:
        """Go through the deltas: name, first row, and the row after the last."""
        row = 0
        for name, rows in groupby(self.routing.names or (self.routing.active,) * self.layout.rows):
            count = len(list(rows))
            yield name, row, row + count
            row += count
