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
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tunesmith.core.errors import CompatibilityError
from tunesmith.models.layout import Bucket, Layout
from tunesmith.models.prefixed import Prefix, widened
from tunesmith.models.routing import Routing

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

    def prefix(self, name: str | None, module: nn.Module) -> Prefix | None:
        """Return what a delta puts in front of the keys and values of a layer.

        Args:
            name: of the delta.
            module: the attention layer.
        Returns:
            Keys and values, (H or fewer, P, d) each, or None.
        """
        return self.prefixes.get(name or "", {}).get(module)


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


_seams: WeakKeyDictionary[nn.Module, AttentionSeam] = WeakKeyDictionary()
_building = threading.local()  # the mask function is not told which model asks


def open_attention(model: nn.Module, seam: AttentionSeam) -> None:
    """Let every module of a model find its attention seam.

    Args:
        model: the model to open.
        seam: what its attention calls will read.
    """
    for module in model.modules():
        _seams[module] = seam


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
    """
    seam = _seams.get(module)
    settings |= {"dropout": dropout, "scaling": scaling}
    if seam is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)[0], None
    if seam.routing.layout is None:
        return _padded(seam, module, query, key, value, attention_mask, settings), None
    if seam.calls is not None:
        seam.calls.append(Call(module, key, value, query.shape[2]))
    rule = _rule(module, query, settings)
    flat = [part[0].transpose(0, 1) for part in (query, _all_heads(key, query, 1), _all_heads(value, query, 1))]
    found = [_in_sight(seam, module, flat, bucket) for bucket in seam.routing.layout.buckets]
    if dropout > 0.0 and query.device.type == "cpu":
        tensors = [part for prefix in found if prefix for part in prefix]
        held = [prefix is not None for prefix in found]
        out: Tensor = _DroppedAttention.apply(*flat, seam.routing, rule, held, *tensors)  # type: ignore[no-untyped-call]
    else:
        out = _each_bucket(flat, seam.routing.layout.buckets, found, rule)
    return out.unsqueeze(0), None  # (1, N, H, d)


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


def _in_sight(seam: AttentionSeam, module: nn.Module, flat: list[Tensor], bucket: Bucket) -> Prefix | None:
    """Return what a bucket's rows see besides themselves: their delta's prefix, or what its leading row leaves."""
    assert seam.routing.layout is not None
    lead = seam.routing.layout.leading.get(bucket.name)
    if lead is not None and bucket is not lead:
        own = slice(lead.start, lead.start + lead.tokens)
        return flat[1][own].transpose(0, 1), flat[2][own].transpose(0, 1)  # (H, P, d)
    prefix = seam.prefix(_name(seam, bucket), module)
    return prefix and (_all_heads(prefix[0], flat[0], 0), _all_heads(prefix[1], flat[0], 0))


def _name(seam: AttentionSeam, bucket: Bucket) -> str | None:
    return seam.routing.active if seam.routing.names is None else bucket.name


@dataclass(frozen=True)
class Rule:
    """How one attention call attends.

    Args:
        causal: keys after the query are hidden.
        window: keys at this distance or further are hidden; None for all seen.
        scale: of the products.
        dropout: of the attention weights. [fraction]
    """

    causal: bool
    window: int | None
    scale: float
    dropout: float

    def mask(self, bucket: Bucket, device: torch.device, before: int = 0) -> Tensor | None:
        """Say which keys a query may look at.

        Args:
            bucket: of rows.
            device: of the tensors.
            before: keys that stand in front of each row's own. [tokens]
        Returns:
            (n or 1, 1, T or 1, before + T), True where it may; None when it may look at all.
        """
        own = self._own(bucket, device)
        near = self.window is not None and bucket.length + before > self.window
        if before == 0 or (own is None and not near):
            return own
        shape = [1, 1, bucket.length, bucket.length] if own is None else list(own.shape)
        front = torch.ones(*shape[:3], before, dtype=torch.bool, device=device)
        if near and self.window is not None:
            places = torch.arange(bucket.length, device=device)[:, None] + before
            seen = places - torch.arange(before, device=device)[None, :] < self.window  # (T, before)
            front = front.expand(-1, -1, bucket.length, -1) & seen
        own = torch.ones(shape, dtype=torch.bool, device=device) if own is None else own
        return torch.cat([front, own.expand(*front.shape[:3], -1)], dim=-1)

    def _own(self, bucket: Bucket, device: torch.device) -> Tensor | None:
        real = None if bucket.real is None else bucket.real.to(device)
        windowed = self.window is not None and bucket.length > self.window
        if not self.causal and not windowed:
            return real
        places = torch.arange(bucket.length, device=device)
        distance = places[:, None] - places[None, :]
        allowed = distance >= 0 if self.causal else torch.ones_like(distance, dtype=torch.bool)
        if windowed and self.window is not None:
            allowed = allowed & (distance.abs() < self.window)
        if real is None:
            return allowed[None, None]
        return (allowed[None, None] & real) | (distance == 0)  # no cell without any key: its softmax would be NaN


def _rule(module: nn.Module, query: Tensor, settings: dict[str, Any]) -> Rule:
    _refuse_unknown(module, settings)
    causal, scaling = settings.get("is_causal"), settings["scaling"]
    causal = getattr(module, "is_causal", True) if causal is None else causal
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return Rule(bool(causal), settings.get("sliding_window"), scale, settings["dropout"])


def _all_heads(part: Tensor, query: Tensor, dim: int) -> Tensor:
    """Repeat shared key or value heads until there is one per query head."""
    shared = query.shape[1] // part.shape[dim]
    return part if shared == 1 else part.repeat_interleave(shared, dim=dim)


def _each_bucket(flat: list[Tensor], buckets: list[Bucket], prefixes: list[Prefix | None], rule: Rule) -> Tensor:
    """Attend within each row of a flat batch: (N, H, d) -> (N, H, d)."""
    if len(buckets) == 1:
        return _bucket((flat[0], flat[1], flat[2]), buckets[0], prefixes[0], rule)
    cut = [part.split([bucket.tokens for bucket in buckets]) for part in flat]
    pieces = zip(*cut, buckets, prefixes, strict=True)
    return torch.cat([_bucket((q, k, v), bucket, prefix, rule) for q, k, v, bucket, prefix in pieces])


def _bucket(tensors: tuple[Tensor, ...], bucket: Bucket, prefix: Prefix | None, rule: Rule) -> Tensor:
    """Attend within each row of a bucket: (tokens, H, d) -> (tokens, H, d)."""
    q, k, v = (bucket.heads(part) for part in tensors)
    plain = rule.causal and not prefix and (rule.window is None or bucket.length <= rule.window)
    mask = None if plain else rule.mask(bucket, q.device, prefix[0].shape[1] if prefix else 0)
    if prefix:
        k, v = _in_front(prefix[0], k), _in_front(prefix[1], v)
    # Cells past a row's end come after all its tokens: a causal rule hides them already, at half the work of a mask.
    out = nn.functional.scaled_dot_product_attention(q, k, v, mask, rule.dropout, plain, scale=rule.scale)
    return bucket.gather(out)


def _in_front(prefix: Tensor, own: Tensor) -> Tensor:
    """Put (H, P, d) in front of each row of (n, H, T, d)."""
    return torch.cat([prefix.to(own.dtype).expand(len(own), -1, -1, -1), own], dim=2)


def _kept_weights(
    routing: Routing, rule: Rule, heads: int, held: list[bool], prefixes: tuple[Tensor, ...]
) -> list[Tensor]:
    """Draw for every bucket which attention weights stay, in the order in which a run of its delta alone draws."""
    assert routing.layout is not None
    keys, found = iter(prefixes[::2]), []
    for bucket, prefixed in zip(routing.layout.buckets, held, strict=True):
        before = next(keys).shape[1] if prefixed else 0
        source = routing.source() if routing.names is None else routing.sources.get(bucket.name or "")
        shape = torch.Size((bucket.rows, heads, bucket.length, before + bucket.length))
        found.append((source or routing.dropout).keep(shape, rule.dropout))
    return found


class _DroppedAttention(torch.autograd.Function):
    """Attention with dropout over a whole ragged batch as one node of the graph.

    torch has no fast kernel for dropped attention on CPUs. Written out here, with one node for all buckets, autograd
    does not record every small product of every bucket.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, routing: Routing, rule: Rule, held: list[bool], *prefixes: Tensor
    ) -> Tensor:
        assert routing.layout is not None
        out, kept, rest = torch.empty_like(v, memory_format=torch.contiguous_format), [], list(prefixes)
        masks = _kept_weights(routing, rule, q.shape[1], held, prefixes)
        for group in routing.layout.groups(held):
            qb, kb, vb = (group.take(tensor) for tensor in (q, k, v))  # (n, H, T, d)
            if held[group.numbers[0]]:
                kb, vb = _in_front(rest.pop(0), kb), _in_front(rest.pop(0), vb)  # (n, H, P + T, d)
            scores = (qb @ kb.transpose(-1, -2)).mul_(rule.scale)  # (n, H, T, P + T)
            mask = rule.mask(group.block, q.device, kb.shape[2] - qb.shape[2])
            if mask is not None:
                scores.masked_fill_(~mask, float("-inf"))
            weights = scores.softmax(-1)
            drawn = [masks[number] for number in group.numbers]
            keep = drawn[0] if len(drawn) == 1 else torch.cat(drawn)
            group.put((weights * keep).mul_(1 / (1 - rule.dropout)) @ vb, out)
            kept += [weights, keep]
        ctx.save_for_backward(q, k, v, *prefixes, *kept)
        ctx.layout, ctx.rule, ctx.held, ctx.prefixes = routing.layout, rule, held, len(prefixes)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *rest = ctx.saved_tensors
        prefixes, kept = list(rest[: ctx.prefixes]), rest[ctx.prefixes :]
        dq, dk, dv = (torch.empty_like(grad, memory_format=torch.contiguous_format) for _ in range(3))
        lift, d_prefixes = 1 / (1 - ctx.rule.dropout), []
        for number, group in enumerate(ctx.layout.groups(ctx.held)):
            weights, keep = kept[2 * number : 2 * number + 2]
            qb, kb, vb = (group.take(tensor) for tensor in (q, k, v))
            before = 0
            if ctx.held[group.numbers[0]]:
                before = prefixes[0].shape[1]
                kb, vb = _in_front(prefixes.pop(0), kb), _in_front(prefixes.pop(0), vb)
            gb = group.take(grad)
            if group.block.real is not None:  # cells without a token repeat one: they must not count twice
                gb *= group.block.real.transpose(-1, -2)
            dropped = (weights * keep).mul_(lift)
            d_values = dropped.transpose(-1, -2) @ gb  # (n, H, P + T, d)
            d_weights = (gb @ vb.transpose(-1, -2)).mul_(keep).mul_(lift)
            d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype).mul_(ctx.rule.scale)
            d_keys = d_scores.transpose(-1, -2) @ qb
            for found, flat in ((d_scores @ kb, dq), (d_keys[:, :, before:], dk), (d_values[:, :, before:], dv)):
                group.put(found, flat)
            if before:
                d_prefixes += [d_keys[:, :, :before].sum(0), d_values[:, :, :before].sum(0)]
        return dq, dk, dv, None, None, None, *d_prefixes


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
