"""Virtual tokens inside the rows of an encoder, and out of its answer again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tunesmith.core.errors import CompatibilityError
from tunesmith.models.layout import Layout
from tunesmith.models.soft_prompts import TokenPrompt

if TYPE_CHECKING:
    from tunesmith.models.seams import Seams


class Insertion:
    """Puts each row's virtual tokens in its place and takes them out of the hidden states.

    Args:
        seams: of the model.
        prompts: of the deltas in use.
        keep: take the virtual tokens out of the answer; not where a decoder reads it.
    """

    def __init__(self, seams: Seams, prompts: Mapping[str, TokenPrompt], keep: bool) -> None:
        self.routing = seams.routing
        self.prompts = prompts
        self.strip = keep

    # Padded batches, one delta for all rows -------------------------------------------------------------------

    def padded(self, run: Callable[..., Any], embeds: Tensor, values: dict[str, Any]) -> Any:
        """Run a padded batch.

        Args:
            run: the backbone.
            embeds: (B, T, D).
            values: its other arguments by name.
        Returns:
            Its answer, for the caller's tokens.
        """
        (prompt,) = self.prompts.values()
        at = 1 if prompt.place == "after-first" else 0
        tokens = prompt.flat().to(embeds.dtype).expand(len(embeds), -1, -1)
        wider = torch.cat([embeds[:, :at], tokens, embeds[:, at:]], dim=1)  # (B, P + T, D)
        mask, kinds = values.get("attention_mask"), values.get("token_type_ids")
        if mask is not None:
            if mask.dim() != 2:
                raise CompatibilityError("virtual tokens need a mask of shape (B, T); a prepared 4-D mask was given.")
            ones = mask.new_ones(len(mask), prompt.length)
            values["attention_mask"] = torch.cat([mask[:, :at], ones, mask[:, at:]], dim=1)
        if kinds is not None:
            values["token_type_ids"] = torch.cat([kinds[:, :1].expand(-1, prompt.length), kinds], dim=1)
        positions = values.get("position_ids")
        if positions is not None:
            first = positions[:, :1] + torch.arange(prompt.length + embeds.shape[1], device=positions.device)
            values["position_ids"] = first
        kept = [*range(at), *range(at + prompt.length, wider.shape[1])]
        return self._stripped(run(inputs_embeds=wider, **values), torch.tensor(kept, device=embeds.device))

    # Flat batches ---------------------------------------------------------------------------------------------

    def layout(self, layout: Layout) -> Layout:
        """Return where the rows lie with their virtual tokens.

        Args:
            layout: of the caller's tokens.
        Returns:
            The wider layout.
        """
        names = self._names(layout)
        lengths = (n + self._length(name) for n, name in zip(layout.lengths, names, strict=True))
        return Layout(tuple(lengths), layout.names)

    def flat(self, run: Callable[..., Any], embeds: Tensor, values: dict[str, Any], layout: Layout) -> Any:
        """Run a flat batch.

        Args:
            run: the backbone.
            embeds: (1, N, D).
            values: its other arguments by name.
            layout: of the caller's tokens.
        Returns:
            Its answer, for the caller's tokens.
        """
        wider = self.layout(layout)
        source, kept = self._sources(layout, wider)
        device = embeds.device
        tensors = [embeds[0], *(prompt.flat().to(embeds.dtype) for prompt in self.prompts.values())]
        values["inputs_embeds"] = torch.cat(tensors).index_select(0, source.to(device))[None]  # (1, N + virtual, D)
        lengths, starts = torch.tensor(wider.lengths), torch.tensor(layout.starts[:-1])
        row = torch.repeat_interleave(torch.arange(wider.rows), lengths)
        within = torch.arange(wider.tokens) - torch.tensor(wider.starts[:-1])[row]
        first = starts[row].to(device)
        if values.get("position_ids") is not None:
            values["position_ids"] = values["position_ids"][:, first] + within.to(device)
        if values.get("token_type_ids") is not None:
            virtual = (source >= layout.tokens).to(device)
            own = torch.where(virtual, first, source.to(device).clamp(max=layout.tokens - 1))
            values["token_type_ids"] = values["token_type_ids"][:, own]
        return self._stripped(run(**values), kept.to(device))

    def _sources(self, layout: Layout, wider: Layout) -> tuple[Tensor, Tensor]:
        """Say where each token comes from, virtual ones after all real ones, and which tokens are real."""
        begins, offset = {}, layout.tokens
        for name, prompt in self.prompts.items():
            begins[name], offset = offset, offset + prompt.length
        parts, real = [], []
        for name, start, length, begin in zip(
            self._names(layout), layout.starts, layout.lengths, wider.starts, strict=False
        ):
            own = torch.arange(start, start + length)
            if name not in begins:
                parts.append(own)
                real.append(torch.arange(begin, begin + length))
                continue
            prompt = self.prompts[name]
            at = 1 if prompt.place == "after-first" else 0
            virtual = torch.arange(begins[name], begins[name] + prompt.length)
            parts += [own[:at], virtual, own[at:]]
            real += [
                torch.arange(begin, begin + at),
                torch.arange(begin + at + prompt.length, begin + prompt.length + length),
            ]
        return torch.cat(parts), torch.cat(real)

    def _names(self, layout: Layout) -> tuple[str, ...]:
        names = self.routing.names or (self.routing.active,) * layout.rows
        return tuple(name or "" for name in names)

    def _length(self, name: str) -> int:
        return self.prompts[name].length if name in self.prompts else 0

    def _stripped(self, output: Any, kept: Tensor) -> Any:
        return stripped(output, kept) if self.strip else output


def stripped(output: Any, kept: Tensor) -> Any:
    """Take the virtual tokens out of hidden states, (B, P + T, D) -> (B, T, D).

    Args:
        output: of a backbone.
        kept: places of the caller's tokens.
    Returns:
        It with fewer tokens.
    """
    if isinstance(output, tuple):
        return (output[0].index_select(1, kept), *output[1:])
    output.last_hidden_state = output.last_hidden_state.index_select(1, kept)
    if getattr(output, "hidden_states", None) is not None:
        output.hidden_states = tuple(states.index_select(1, kept) for states in output.hidden_states)
    return output
