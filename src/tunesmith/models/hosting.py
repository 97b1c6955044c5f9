"""The embedding seam: the part of a model that turns embeddings into hidden states, with soft prompts put in."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tunesmith.core.errors import CompatibilityError
from tunesmith.models.attention import flat_rows, open_attention
from tunesmith.models.inserting import Insertion
from tunesmith.models.leading import Leading
from tunesmith.models.loading import first_place
from tunesmith.models.prefixed import Prefix
from tunesmith.models.routing import Routing
from tunesmith.models.soft_prompts import PrefixPrompt, SoftPrompt, TokenPrompt
from tunesmith.models.structure import is_causal

if TYPE_CHECKING:
    from tunesmith.models.seams import Seams


class HostSeam:
    """Stands in for the forward of a model's backbone, encoder or decoder.

    Args:
        module: the backbone, encoder or decoder.
        seams: of the model.
    """

    def __init__(self, module: nn.Module, seams: Seams) -> None:
        self.module = module
        self.seams = seams
        self.base: Callable[..., Any] = module.forward
        self.__signature__ = inspect.signature(module.forward)  # generation asks what forward takes
        self.layers = set(module.modules())
        self._causal = is_causal(module)
        self._takes = set(self.__signature__.parameters)
        self._first_place = first_place(module)
        self.kept: dict[str, tuple[list[Tensor], dict[nn.Module, Prefix]]] = {}
        self._shifting = [_Shifted(inner, seams.routing) for inner in module.modules() if _Shifted.fits(inner)]
        self._copied = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Note that this is the seam of a copied or loaded model, whose attention is not known to us yet."""
        self.__dict__.update(state, _copied=True)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run with the soft prompts of the rows' deltas."""
        prompts = self._prompts()
        if self._copied:
            open_attention(self.seams.model, self.seams.attending)
            self._copied = False
        routing = self.seams.routing
        plain = not prompts and routing.names is None
        if plain and routing.expected is None:
            return self.base(*args, **kwargs)
        if not plain and routing.recomputes and self.module.training and torch.is_grad_enabled():
            raise CompatibilityError(
                f"{type(self.module).__name__}: gradient checkpointing runs layers again when the pass is over and its "
                "rows' prompts and deltas are no longer known. Switch it off for soft prompts and for rows of several "
                "deltas; one delta of patches or copies for all rows may keep it."
            )
        values = self._by_name(args, kwargs)
        rows = _rows(values)
        routing.check_rows(rows if routing.layout is None else routing.layout.rows, type(self.module).__name__)
        with routing.batch(rows):
            return self._run(values, prompts) if prompts else self.base(**values)

    def _run(self, values: dict[str, Any], prompts: dict[str, SoftPrompt]) -> Any:
        inserted = {n: p for n, p in prompts.items() if isinstance(p, TokenPrompt) and not self._causal}
        leading = self._leading(values, prompts)
        prefixes = {n: self._prefix(n, p) for n, p in prompts.items() if n not in inserted and n not in leading}
        if inserted and self.seams.routing.names is not None and self.seams.routing.layout is None:
            return self._by_delta(values)
        self._check_room(values, prompts)
        self._shift(values, {name: self._own_length(name, prompts, prefixes) for name in prefixes})
        with self.seams.attending.prefixed({**self.seams.attending.prefixes, **prefixes}):
            try:
                return self._with_tokens(values, inserted, leading) if inserted or leading else self.base(**values)
            finally:
                for module in self._shifting:
                    module.by = [0]

    def close(self) -> None:
        """Give the part of the model back as it was."""
        for shifted in self._shifting:
            shifted.close()

    def _prompts(self) -> dict[str, SoftPrompt]:
        """Return the soft prompts that this part of the model sees, by delta."""
        found: dict[str, SoftPrompt] = {}
        for name in self.seams.routing.used:
            prompt = self.seams.deltas[name].prompt
            if isinstance(prompt, PrefixPrompt) and any(layer.module in self.layers for layer in prompt.layers):
                found[name] = prompt
            if isinstance(prompt, TokenPrompt) and self.module is self.seams.reader and not self._recording:
                found[name] = prompt
        return found

    @property
    def _recording(self) -> bool:
        return self.seams.attending.calls is not None

    def _by_name(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        bound = self.__signature__.bind(*args, **kwargs)
        values = dict(bound.arguments)
        for parameter in self.__signature__.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                values |= values.pop(parameter.name, {})
        return values

    # Prefixes -------------------------------------------------------------------------------------------------

    def _prefix(self, name: str, prompt: SoftPrompt) -> dict[nn.Module, Prefix]:
        """Return a delta's keys and values; without gradients they are kept until its parameters change."""
        parameters = self.seams.deltas[name].parameters()
        kept = self.kept.pop(name, None)
        if kept is not None and not torch.is_grad_enabled() and _same(kept[0], parameters):
            self.kept[name] = kept
            return kept[1]
        found = prompt.prefixes() if isinstance(prompt, PrefixPrompt) else self._run_once(name, prompt)
        if not torch.is_grad_enabled():
            self.kept[name] = ([parameter.clone() for parameter in parameters], found)
        return found

    def _run_once(self, name: str, prompt: SoftPrompt) -> dict[nn.Module, Prefix]:
        """Send the virtual tokens through a causal model as a row of their own; note the keys and values they leave."""
        embeddings = prompt.flat()[None].to(self.seams.embedding_weight.dtype)  # (1, P, D)
        extra = {"use_cache": False} if "use_cache" in self._takes else {}
        with self.seams.attending.recording() as calls, self.seams.routing.only(name):
            self.base(inputs_embeds=embeddings, **extra)
        return {call.module: (call.key[0], call.value[0]) for call in calls}

    def _own_length(self, name: str, prompts: dict[str, SoftPrompt], prefixes: dict[str, Any]) -> int:
        """Return by how much a prefix moves the rows' positions: not at all when only other sequences get it."""
        prompt = prompts[name]
        if isinstance(prompt, PrefixPrompt) and all(layer.cross for layer in prompt.layers):
            return 0
        return prompt.length

    # Positions ------------------------------------------------------------------------------------------------

    def _shift(self, values: dict[str, Any], shifts: dict[str, int]) -> None:
        """Let the rows' own positions begin after their prefix, as they do in PEFT."""
        if not any(shifts.values()):
            return
        names = self.seams.routing.names
        if "position_ids" in self._takes:
            positions = values.get("position_ids")
            positions = self._positions(values) if positions is None else positions
            if names is None:
                values["position_ids"] = positions + next(iter(shifts.values()))
                return
            by = torch.tensor([shifts.get(name or "", 0) for name in names], device=positions.device)
            layout = self.seams.routing.layout
            if layout is None:
                by = by.repeat_interleave(self.seams.routing.repeat)[:, None]
            else:
                by = by.repeat_interleave(torch.tensor(layout.lengths, device=by.device))  # (N,)
            values["position_ids"] = positions + by
            return
        rows = [shifts.get(name or "", 0) for name in names or [next(iter(shifts))]]
        for module in self._shifting:
            module.by = [by for by in rows for _ in range(self.seams.routing.repeat)]

    def _positions(self, values: dict[str, Any]) -> Tensor:
        ids, embeds, past = values.get("input_ids"), values.get("inputs_embeds"), _past(values)
        reference = ids if ids is not None else embeds
        assert reference is not None
        for module in self.module.modules():
            if hasattr(module, "create_position_ids_from_input_ids") and ids is not None:  # RoBERTa and its kin
                return module.create_position_ids_from_input_ids(ids, module.padding_idx, past)  # type: ignore[operator]
        return torch.arange(past, past + reference.shape[1], device=reference.device)[None]

    def _check_room(self, values: dict[str, Any], prompts: dict[str, SoftPrompt]) -> None:
        config: Any = self.module.config
        limit = getattr(config.get_text_config(), "max_position_embeddings", None)
        reference = values.get("input_ids")
        reference = values.get("inputs_embeds") if reference is None else reference
        if limit is None or reference is None:
            return
        layout = self.seams.routing.layout
        limit -= self._first_place
        longest = max(layout.lengths) if layout is not None else reference.shape[1] + _past(values)
        prompt = max(prompt.length for prompt in prompts.values())
        if longest + prompt > limit:
            shorter = f"the rows (data.max_tokens={limit - prompt}) or " if limit - prompt >= 2 else ""
            raise CompatibilityError(
                f"the soft prompt leaves too little room: {prompt} virtual tokens and a row of {longest} tokens make "
                f"{longest + prompt}, and {type(self.module).__name__} can read {limit}. Shorten {shorter}the prompt "
                "(method.length)."
            )

    # Virtual tokens inside the rows ---------------------------------------------------------------------------

    def _leading(self, values: dict[str, Any], prompts: dict[str, SoftPrompt]) -> dict[str, TokenPrompt]:
        """Return the virtual tokens that go through a causal model in the same pass as the rows: where they train."""
        flat = self.seams.routing.layout is not None and values.get("position_ids") is not None
        if not (flat and self._causal and torch.is_grad_enabled()) or values.get("token_type_ids") is not None:
            return {}
        return {name: prompt for name, prompt in prompts.items() if isinstance(prompt, TokenPrompt)}

    def _with_tokens(
        self, values: dict[str, Any], inserted: dict[str, TokenPrompt], leading: dict[str, TokenPrompt]
    ) -> Any:
        embeds = values.pop("inputs_embeds", None)
        ids = values.pop("input_ids", None)
        if embeds is None:
            embeds = self.module.get_input_embeddings()(ids)  # type: ignore[operator]
        layout = self.seams.routing.layout
        if leading and layout is not None:
            return Leading(self.seams, leading, layout).flat(self.base, embeds, values)
        insertion = Insertion(self.seams, inserted, keep=self.module is not self.seams.encoder)
        if layout is None:
            return insertion.padded(self.base, embeds, values)
        with flat_rows(self.seams.routing, insertion.layout(layout)):
            return insertion.flat(self.base, embeds, values, layout)

    def _by_delta(self, values: dict[str, Any]) -> Any:
        """Run a padded batch of several deltas one delta after another."""
        routing, outputs, row = self.seams.routing, [], 0
        reference = values.get("input_ids")
        reference = values["inputs_embeds"] if reference is None else reference
        for span in routing.spans(reference, type(self.module).__name__):
            part = slice(row, row + span.size)
            own = {k: v[part] if isinstance(v, Tensor) and len(v) == len(reference) else v for k, v in values.items()}
            with routing.only(span.name):
                outputs.append(self(**own))
            row += span.size
        if self.module is self.seams.encoder:  # its states keep their virtual tokens: line the rows up at the end
            longest = max(output[0].shape[1] for output in outputs)
            for output in outputs:
                states = nn.functional.pad(output[0], (0, 0, longest - output[0].shape[1], 0))
                output.last_hidden_state = states
        return _joined(outputs)


def _same(kept: list[Tensor], parameters: list[nn.Parameter]) -> bool:
    """Compare by value: torch's fused optimizers do not count what they write."""
    pairs = zip(kept, parameters, strict=True)
    return all(a.dtype == b.dtype and a.device == b.device and torch.equal(a, b) for a, b in pairs)


def _rows(values: dict[str, Any]) -> int:
    """Return how many rows a padded batch has."""
    for name in ("input_ids", "inputs_embeds", "pixel_values"):
        if values.get(name) is not None:
            return len(values[name])
    return len(next(value for value in values.values() if isinstance(value, Tensor)))


def _joined(outputs: list[Any]) -> Any:
    """Put the outputs of stretches of rows back together."""
    first = outputs[0]
    if isinstance(first, Tensor):
        return torch.cat(outputs)
    if isinstance(first, tuple):
        return tuple(_joined(list(parts)) for parts in zip(*outputs, strict=True))
    if first is None:
        return None
    return type(first)(**{key: _joined([output[key] for output in outputs]) for key in first})


def _past(values: dict[str, Any]) -> int:
    cache = values.get("past_key_values")
    return 0 if cache is None else int(cache.get_seq_length())


class _Shifted:
    """A module that counts positions by itself: BART's table, T5's relative bias. `by` is added to each row's count."""

    def __init__(self, module: nn.Module, routing: Routing) -> None:
        self.module = module
        self.routing = routing
        self.by = [0]
        self.relative = hasattr(module, "compute_bias")
        self.base: Callable[..., Any] = module.compute_bias if self.relative else module.forward  # type: ignore[assignment]
        if self.relative:
            module.compute_bias = self._bias  # type: ignore[assignment]
        else:
            module.forward = self._table

    def close(self) -> None:
        """Give the module back as it was."""
        self.module.__dict__.pop("compute_bias", None)

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Say whether a module counts positions by itself."""
        if hasattr(module, "compute_bias"):
            return bool(module.has_relative_attention_bias)
        asked = inspect.signature(type(module).forward).parameters
        return isinstance(module, nn.Embedding) and "past_key_values_length" in asked

    def _bias(self, query_length: int, key_length: int, device: Any = None, past_seen_tokens: int = 0) -> Any:
        """Make the bias wide enough for the longest prefix; shorter ones take its right end.

        It has no rows of its own, so where deltas differ in its table every row gets the bias of its delta.
        """
        by = max(self.by)
        names = self.routing.names
        table: Any = self.module.relative_attention_bias.forward  # type: ignore[union-attr]
        make = partial(self.base, query_length, key_length + by, device=device, past_seen_tokens=past_seen_tokens + by)
        if names is None or not (self.routing.touches(table.patches) or self.routing.touches(table.copies)):
            return make()
        found = {}
        for name in set(names):
            with self.routing.only(name):
                found[name] = make()
        return torch.cat([found[name] for name in names for _ in range(self.routing.repeat)])

    def _table(self, ids: Tensor, past_key_values_length: int = 0, position_ids: Tensor | None = None) -> Any:
        found = {
            by: self.base(
                ids, past_key_values_length + by, position_ids=None if position_ids is None else position_ids + by
            )
            for by in set(self.by)
        }
        return found[self.by[0]] if len(found) == 1 else torch.cat([found[by][:1] for by in self.by])


class DecoderSeam(HostSeam):
    """The decoder beside an encoder: it must see the virtual tokens that the encoder was given."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Widen the mask over the encoder's states by each row's virtual tokens."""
        values = self._by_name(args, kwargs)
        states, lengths = values.get("encoder_hidden_states"), self._virtual()
        if states is not None and max(lengths) > 0:
            values["encoder_attention_mask"] = self._wider(values.get("encoder_attention_mask"), states, lengths)
        return super().__call__(**values)

    def _virtual(self) -> list[int]:
        """Return how many virtual tokens the encoder gave each row."""
        routing = self.seams.routing
        prompts = [self.seams.deltas[name].prompt if name else None for name in routing.names or (routing.active,)]
        return [prompt.length if isinstance(prompt, TokenPrompt) else 0 for prompt in prompts]

    def _wider(self, mask: Tensor | None, states: Tensor, lengths: list[int]) -> Tensor:
        virtual = max(lengths)
        if mask is None:
            mask = states.new_ones(len(states), states.shape[1] - virtual, dtype=torch.int64)
        if mask.dim() != 2:
            raise CompatibilityError("virtual tokens need an encoder mask of shape (B, T); a prepared one was given.")
        count = torch.tensor(lengths, device=mask.device).repeat_interleave(len(mask) // len(lengths))
        real = torch.arange(virtual, device=mask.device)[None, :] >= virtual - count[:, None]
        return torch.cat([real.to(mask.dtype), mask], dim=1)
