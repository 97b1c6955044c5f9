"""Attention over a flat batch: every row looks at its own tokens and at what stands in front of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tunesmith.models.layout import Bucket, Group, Layout
from tunesmith.models.prefixed import Prefix
from tunesmith.models.routing import Routing


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


def attend(q: Tensor, k: Tensor, v: Tensor, routing: Routing, rule: Rule, prefixes: list[Prefix | None]) -> Tensor:
    """Attend within each row of a flat batch.

    Args:
        q: (N, H, d).
        k: (N, H or fewer, d).
        v: as k.
        routing: holds the layout, and each delta's dropout.
        rule: of the attention call.
        prefixes: per bucket, the keys and values that its rows see in front of their own, (H or fewer, P, d) each.
    Returns:
        (N, H, d).
    """
    assert routing.layout is not None
    held, parts = (
        [prefix is not None for prefix in prefixes],
        [part for prefix in prefixes if prefix for part in prefix],
    )
    if _has_kernel(q, v) and rule.dropout == 0.0:
        found: Tensor = _WholeAttention.apply(q, k, v, routing.layout, rule, held, *parts)  # type: ignore[no-untyped-call]
        return found
    k, v, *parts = (_all_heads(part, q.shape[1], dim) for part, dim in [(k, 1), (v, 1), *((part, 0) for part in parts)])
    if q.device.type == "cpu" and rule.dropout > 0.0:
        found = _DroppedAttention.apply(q, k, v, routing, rule, held, *parts)  # type: ignore[no-untyped-call]
        return found
    rest = iter(parts)
    return _each_bucket(
        [q, k, v], routing.layout.buckets, [(next(rest), next(rest)) if own else None for own in held], rule
    )


def _has_kernel(q: Tensor, v: Tensor) -> bool:
    """Whether torch's fast CPU kernel serves these tensors."""
    return q.device.type == "cpu" and q.shape[-1] == v.shape[-1] and q.dtype == v.dtype


def _all_heads(part: Tensor, heads: int, dim: int) -> Tensor:
    """Repeat shared key or value heads until there is one per query head."""
    shared = heads // part.shape[dim]
    return part if shared == 1 else part.repeat_interleave(shared, dim=dim)


def _one_sum(part: Tensor, heads: int) -> Tensor:
    """Undo `_all_heads` in a gradient: (n, H, T, d) to (n, fewer, T, d)."""
    return part if part.shape[1] == heads else part.unflatten(1, (heads, -1)).sum(2)


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


_attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_attend_back = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class _WholeAttention(torch.autograd.Function):
    """Attention over a whole ragged batch as one node of the graph, by torch's fast CPU kernel.

    It keeps the flat q, k, v and output; a node per bucket would keep padded copies of all four, shared heads repeated.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, layout: Layout, rule: Rule, held: list[bool], *prefixes: Tensor
    ) -> Tensor:
        out, sums, rest = torch.empty_like(q, memory_format=torch.contiguous_format), [], list(prefixes)
        for group in layout.groups(held):
            front = (rest.pop(0), rest.pop(0)) if held[group.numbers[0]] else None
            blocks, settings = _laid(group, (q, k, v), front, rule)
            found, logs = _attend(*blocks, **settings)
            group.put(found, out)
            sums.append(logs)
        ctx.save_for_backward(q, k, v, out, *prefixes, *sums)
        ctx.layout, ctx.rule, ctx.held, ctx.prefixes = layout, rule, held, len(prefixes)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, *rest = ctx.saved_tensors
        prefixes, sums = list(rest[: ctx.prefixes]), rest[ctx.prefixes :]
        dq, dk, dv = (torch.empty_like(one, memory_format=torch.contiguous_format) for one in (q, k, v))
        d_prefixes: list[Tensor | None] = []
        for group, logs in zip(ctx.layout.groups(ctx.held), sums, strict=True):
            front = (prefixes.pop(0), prefixes.pop(0)) if ctx.held[group.numbers[0]] else None
            blocks, settings = _laid(group, (q, k, v), front, ctx.rule)
            d_out = group.take(grad)
            if group.block.real is not None:  # cells without a token repeat one: they must not count twice
                d_out *= group.block.real.transpose(-1, -2)
            d_q, d_k, d_v = _attend_back(
                d_out, *blocks, group.take(out), logs, 0.0, settings["is_causal"],
                attn_mask=settings["attn_mask"], scale=settings["scale"],
            )  # fmt: skip
            d_k, d_v = _one_sum(d_k, k.shape[1]), _one_sum(d_v, v.shape[1])
            before = 0 if front is None else front[0].shape[1]
            for found, flat in ((d_q, dq), (d_k[:, :, before:], dk), (d_v[:, :, before:], dv)):
                group.put(found, flat)
            if front:
                d_prefixes += [d_k[:, :, :before].sum(0), d_v[:, :, :before].sum(0)]
        return dq, dk, dv, None, None, None, *d_prefixes


def _laid(
    group: Group, flat: tuple[Tensor, Tensor, Tensor], front: Prefix | None, rule: Rule
) -> tuple[list[Tensor], dict[str, Any]]:
    """Return q, k and v of a group as blocks (n, H, T, d), and how its rows may look at them."""
    q, k, v = (group.laid(part) for part in flat)
    before = 0 if front is None else front[0].shape[1]
    if front:
        k, v = _in_front(front[0], k), _in_front(front[1], v)
    # Cells past a row's end come after all its tokens: a causal rule hides them already, at half the work of a mask.
    plain = rule.causal and not before and (rule.window is None or group.block.length <= rule.window)
    seen = None if plain else rule.mask(group.block, q.device, before)
    mask = None if seen is None else torch.zeros(seen.shape, dtype=q.dtype).masked_fill_(~seen, float("-inf"))
    heads = q.shape[1]
    settings = {"is_causal": plain, "attn_mask": mask, "scale": rule.scale}
    return [q, _all_heads(k, heads, 1), _all_heads(v, heads, 1)], settings


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
