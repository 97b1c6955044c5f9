"""The attention seam: one attention function, registered with transformers' attention interface.

Under a layout the batch is flat and attention is the only place that knows rows: rows of like length form a bucket
and each bucket is one attention product; cells past a row's end are masked. Without a layout the call goes to
transformers' own function. Either way a delta may put keys and values in front of those of its rows.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tunesmith.core.errors import CompatibilityError
from tunesmith.models.layout import Bucket, Layout
from tunesmith.models.prefixed import Prefix, widened
from tunesmith.models.ragged_attention import Rule, attend
from tunesmith.models.routing import Routing
from tunesmith.models.rows_attention import attend_rows, takes_rows

NAME = "tunesmith"


class AttentionSeam:
    """What the attention function needs to know about one opened model.

    Args:
        routing: holds the layout while a flat batch runs, and each delta's dropout.
    """

    def __init__(self, routing: Routing) -> None:
        self.routing = routing
        self.prefixes: dict[str, dict[nn.Module, Prefix]] = {}
        self.calls: list[Call] | None = None
        self.stops = False
        self.answer: Tensor | None = None

    @contextmanager
    def prefixed(self, prefixes: dict[str, dict[nn.Module, Prefix]]) -> Iterator[None]:
        """Put keys and values in front of the rows of some deltas inside the block.

        Args:
            prefixes: per delta, per attention module.
        """
        before = self.prefixes
        self.prefixes = prefixes
        try:
            yield
        finally:
            self.prefixes = before

    @contextmanager
    def recording(self) -> Iterator[list[Call]]:
        """Note the attention calls inside the block, in order.

        Returns:
            The calls; filled while the block runs.
        """
        before, layout, flat = self.calls, self.routing.layout, getattr(_building, "flat", False)
        self.calls, self.routing.layout, _building.flat = [], None, False
        try:
            yield self.calls
        finally:
            self.calls, self.routing.layout, _building.flat = before, layout, flat

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Note no calls inside the block: they were noted when they ran first."""
        before, self.calls = self.calls, None
        try:
            yield
        finally:
            self.calls = before

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """Raise `Attended` with what attention gives at the first call inside the block."""
        self.stops = True
        try:
            yield
        finally:
            self.stops = False

    @contextmanager
    def answering(self, output: Tensor) -> Iterator[None]:
        """Let attention give what is known already, whatever it is called with inside the block.

        Args:
            output: (1, M, H, d).
        """
        self.answer = output
        try:
            yield
        finally:
            self.answer = None

    def prefix(self, name: str | None, module: nn.Module) -> Prefix | None:
        """Return what a delta puts in front of the keys and values of a layer.

        Args:
            name: of the delta.
            module: the attention layer.
        Returns:
            Keys and values, (H or fewer, P, d) each, or None.
        """
        return self.prefixes.get(name or "", {}).get(module)


class Attended(Exception):
    """Attention has been computed, and what follows it will run otherwise.

    Args:
        output: (1, N, H, d), what it gave.
    """

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output


@dataclass(frozen=True)
class Call:
    """One attention call of a recorded pass.

    Args:
        module: the attention layer.
        key: (B, H or fewer, S, d).
        value: as key.
        queries: T. [tokens]
    """

    module: nn.Module
    key: Tensor
    value: Tensor
    queries: int


# Weak on both sides: a seam holds layers, and would keep them alive for good. The model's Seams holds it.
_seams: WeakKeyDictionary[nn.Module, ref[AttentionSeam]] = WeakKeyDictionary()
_building = threading.local()  # the mask function is not told which model asks


def open_attention(model: nn.Module, seam: AttentionSeam) -> None:
    """Let every module of a model find its attention seam.

    Args:
        model: the model to open.
        seam: what its attention calls will read, as long as somebody else holds it.
    """
    for module in model.modules():
        _seams[module] = ref(seam)


def close_attention(model: nn.Module) -> None:
    """Forget a model's attention seam.

    Args:
        model: a model that was opened.
    """
    for module in model.modules():
        _seams.pop(module, None)


class flat_rows:  # noqa: N801 - reads as a verb: with flat_rows(routing, layout)
    """Run the forward passes of a block over a flat batch.

    Args:
        routing: of the opened model.
        layout: where the rows lie.
    """

    def __init__(self, routing: Routing, layout: Layout) -> None:
        self.routing, self.layout = routing, layout

    def __enter__(self) -> None:
        self._before = self.routing.layout
        self.routing.layout = self.layout
        _building.flat = True

    def __exit__(self, *error: object) -> None:
        self.routing.layout = self._before
        _building.flat = self._before is not None


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention that knows the rows of a flat batch.

    Args:
        module: the attention layer that calls.
        query: (B, H, T, D / H); under a layout B = 1 and T = N.
        key: (B, H or fewer, T, D / H).
        value: as key.
        attention_mask: the model's mask; not used under a layout.
        dropout: probability of dropping an attention weight. [fraction]
        scaling: of the products; 1 / sqrt(D / H) when None.
        **settings: what else the model passes: is_causal, sliding_window, ...
    Returns:
        (B, T, H, D / H), and None for the attention weights.
    Raises:
        CompatibilityError: the model wants something of attention that the flat path does not do.
        Attended: inside `AttentionSeam.stopping`.
    """
    seam = held() if (held := _seams.get(module)) else None
    settings |= {"dropout": dropout, "scaling": scaling}
    _refuse_unsupported(module, settings)
    if seam is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)[0], None
    if seam.routing.layout is None:
        return _padded(seam, module, query, key, value, attention_mask, settings), None
    if seam.answer is not None:
        return seam.answer, None
    if seam.calls is not None:
        seam.calls.append(Call(module, key, value, query.shape[2]))
    rule = _rule(module, query, settings)
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))  # (N, H or fewer, d)
    if takes_rows(q, v, rule):
        out = attend_rows(q, k, v, seam.routing.layout, rule, _given(seam, module)).unsqueeze(0)  # (1, N, H, d)
    else:
        found = [_in_sight(seam, module, (k, v), bucket) for bucket in seam.routing.layout.buckets]
        out = attend(q, k, v, seam.routing, rule, found).unsqueeze(0)
    if seam.stops:
        raise Attended(out)
    return out, None


def _padded(
    seam: AttentionSeam,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    settings: dict[str, Any],
) -> Tensor:
    """Attend in a padded batch: transformers' own function, each delta's rows with their prefix."""
    if seam.calls is not None:
        seam.calls.append(Call(module, key, value, query.shape[2]))
    if not any(module in layers for layers in seam.prefixes.values()):
        return sdpa_attention_forward(module, query, key, value, mask, **settings)[0]
    if seam.routing.names is None:
        prefix = seam.prefix(seam.routing.active, module)
        return widened(sdpa_attention_forward, module, (query, key, value), mask, prefix, settings)
    outputs, row, bias = [], 0, settings.get("position_bias")
    for span in seam.routing.spans(query, type(module).__name__):
        rows = slice(row, row + span.size)
        part = None if mask is None else mask.expand(query.shape[0], -1, -1, -1)[rows]
        own = settings if bias is None or bias.shape[0] == 1 else {**settings, "position_bias": bias[rows]}
        tensors = (query[rows], key[rows], value[rows])
        outputs.append(widened(sdpa_attention_forward, module, tensors, part, seam.prefix(span.name, module), own))
        row += span.size
    return torch.cat(outputs)


def _in_sight(seam: AttentionSeam, module: nn.Module, flat: tuple[Tensor, Tensor], bucket: Bucket) -> Prefix | None:
    """Return what a bucket's rows see besides themselves: their delta's prefix, then what its leading row leaves."""
    assert seam.routing.layout is not None
    lead, prefix = seam.routing.layout.leading.get(bucket.name), seam.prefix(_name(seam, bucket), module)
    if lead is None or bucket is lead:
        return prefix
    own = slice(lead.start, lead.start + lead.tokens)
    key, value = (part[own].transpose(0, 1) for part in flat)  # (H or fewer, P, d)
    if prefix is None:
        return key, value
    return torch.cat([prefix[0].to(key.dtype), key], 1), torch.cat([prefix[1].to(value.dtype), value], 1)


def _given(seam: AttentionSeam, module: nn.Module) -> dict[str | None, Prefix]:
    """Return what is given in front of rows, by their name in the layout."""
    assert seam.routing.layout is not None
    if seam.routing.names is None:
        names = set(seam.routing.layout.names or (None,))
        found = seam.prefix(seam.routing.active, module)
        return {} if found is None else dict.fromkeys(names, found)
    pairs = ((name, seam.prefix(name, module)) for name in dict.fromkeys(seam.routing.layout.names or ()))
    return {name: prefix for name, prefix in pairs if prefix is not None}


def _name(seam: AttentionSeam, bucket: Bucket) -> str | None:
    return seam.routing.active if seam.routing.names is None else bucket.name


def _rule(module: nn.Module, query: Tensor, settings: dict[str, Any]) -> Rule:
    _refuse_unknown(module, settings)
    causal, scaling = settings.get("is_causal"), settings["scaling"]
    causal = getattr(module, "is_causal", True) if causal is None else causal
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return Rule(bool(causal), settings.get("sliding_window"), scale, settings["dropout"])


def _refuse_unsupported(module: nn.Module, settings: dict[str, Any]) -> None:
    """Refuse what transformers' own function, which serves padded batches, would refuse or leave out."""
    if settings.get("softcap") is not None:
        raise CompatibilityError(
            f"{type(module).__name__} caps its attention scores (softcap={settings['softcap']:g}, as Gemma 2 does), "
            "which is not supported. Choose another model."
        )
    if settings.get("s_aux") is not None:
        raise CompatibilityError(
            f"{type(module).__name__} adds learned sinks to its attention scores (s_aux, as gpt-oss does), which is "
            "not supported. Choose another model."
        )


_HARMLESS = {"is_causal", "sliding_window", "position_ids", "use_cache", "cache_position", "output_attentions"}
_READ = {"dropout", "scaling"}


def _refuse_unknown(module: nn.Module, settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        if name not in _HARMLESS | _READ and value is not None and value is not False:
            raise CompatibilityError(
                f"{type(module).__name__} passes '{name}' to attention, which the flat path does not know."
            )


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    if getattr(_building, "flat", False):
        return None
    mask: Tensor | None = sdpa_mask(*args, **kwargs)
    return mask


ALL_ATTENTION_FUNCTIONS.register(NAME, attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, _mask)
