"""The attention seam: one attention function, registered with transformers' attention interface.

Under a layout the batch is flat and attention is the only place that knows rows: rows of like length form a bucket
and each bucket is one attention product; cells past a row's end are masked. Without a layout the call goes to
transformers' own function.
"""

from __future__ import annotations

import threading
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
from tunesmith.models.dropout import DropoutSource
from tunesmith.models.layout import Bucket, Layout
from tunesmith.models.routing import Routing

NAME = "tunesmith"


class AttentionSeam:
    """What the attention function needs to know about one opened model.

    Args:
        routing: holds the layout while a flat batch runs.
        dropout: where attention dropout is drawn.
    """

    def __init__(self, routing: Routing, dropout: DropoutSource) -> None:
        self.routing = routing
        self.dropout = dropout


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
        self.routing.layout = self.layout
        _building.flat = True

    def __exit__(self, *error: object) -> None:
        self.routing.layout = None
        _building.flat = False


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
    layout = seam.routing.layout if seam else None
    if seam is None or layout is None:
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **settings
        )
        return output, None
    _refuse_unknown(module, settings)
    causal = settings.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    window = settings.get("sliding_window")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    rule = Rule(bool(causal), window, scale, dropout)
    flat = [part[0].transpose(0, 1) for part in (query, _all_heads(key, query), _all_heads(value, query))]  # (N, H, d)
    if dropout > 0.0 and query.device.type == "cpu":
        out: Tensor = _DroppedAttention.apply(*flat, layout, rule, seam.dropout)  # type: ignore[no-untyped-call]
    else:
        sizes = [bucket.tokens for bucket in layout.buckets]
        queries, keys, values = (part.split(sizes) for part in flat)
        out = torch.cat([_bucket(*parts, rule) for parts in zip(queries, keys, values, layout.buckets, strict=True)])
    return out.unsqueeze(0), None  # (1, N, H, d)


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

    def mask(self, bucket: Bucket, device: torch.device) -> Tensor | None:
        """Say which keys a query may look at.

        Args:
            bucket: of rows.
            device: of the tensors.
        Returns:
            (n or 1, 1, T or 1, T), True where it may; None when it may look at all.
        """
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


def _all_heads(part: Tensor, query: Tensor) -> Tensor:
    """Repeat shared key or value heads, (1, H', N, d) -> (1, H, N, d)."""
    shared = query.shape[1] // part.shape[1]
    return part if shared == 1 else part.repeat_interleave(shared, dim=1)


def _bucket(q: Tensor, k: Tensor, v: Tensor, bucket: Bucket, rule: Rule) -> Tensor:
    """Attend within each row of a bucket: (tokens, H, d) -> (tokens, H, d)."""
    mask = rule.mask(bucket, q.device)
    q, k, v = (bucket.spread(part) for part in (q, k, v))
    out = nn.functional.scaled_dot_product_attention(q, k, v, mask, rule.dropout, scale=rule.scale)
    return bucket.gather(out)


class _DroppedAttention(torch.autograd.Function):
    """Attention with dropout over a whole ragged batch as one node of the graph.

    torch has no fast kernel for dropped attention on CPUs. Written out here, with one node for all buckets, autograd
    does not record every small product of every bucket.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, layout: Layout, rule: Rule, source: DropoutSource) -> Tensor:
        out, kept = torch.empty_like(v, memory_format=torch.contiguous_format), []
        for bucket in layout.buckets:
            part = slice(bucket.start, bucket.start + bucket.tokens)
            qb, kb, vb = (bucket.spread(tensor[part]) for tensor in (q, k, v))  # (n, H, T, d)
            scores = (qb @ kb.transpose(-1, -2)).mul_(rule.scale)  # (n, H, T, T)
            mask = rule.mask(bucket, q.device)
            if mask is not None:
                scores.masked_fill_(~mask, float("-inf"))
            weights = scores.softmax(-1)
            keep = source.keep(weights.shape, rule.dropout)
            out[part] = bucket.gather((weights * keep).mul_(1 / (1 - rule.dropout)) @ vb)
            kept += [weights, keep]
        ctx.save_for_backward(q, k, v, *kept)
        ctx.layout, ctx.rule = layout, rule
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *kept = ctx.saved_tensors
        dq, dk, dv = (torch.empty_like(grad, memory_format=torch.contiguous_format) for _ in range(3))
        lift = 1 / (1 - ctx.rule.dropout)
        for number, bucket in enumerate(ctx.layout.buckets):
            part = slice(bucket.start, bucket.start + bucket.tokens)
            weights, keep = kept[2 * number : 2 * number + 2]
            qb, kb, vb = (bucket.spread(tensor[part]) for tensor in (q, k, v))
            gb = bucket.spread(grad[part])
            if bucket.real is not None:  # cells without a token repeat one: they must not count twice
                gb *= bucket.real.transpose(-1, -2)
            dropped = (weights * keep).mul_(lift)
            dv[part] = bucket.gather(dropped.transpose(-1, -2) @ gb)
            d_weights = (gb @ vb.transpose(-1, -2)).mul_(keep).mul_(lift)
            d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype).mul_(ctx.rule.scale)
            dq[part] = bucket.gather(d_scores @ kb)
            dk[part] = bucket.gather(d_scores.transpose(-1, -2) @ qb)
        return dq, dk, dv, None, None, None


_HARMLESS = {"is_causal", "sliding_window", "position_ids", "use_cache", "cache_position", "output_attentions"}


def _refuse_unknown(module: nn.Module, settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        if name not in _HARMLESS and value is not None and value is not False:
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
