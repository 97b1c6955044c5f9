"""Attention over a flat batch: every row looks at its own tokens and at what stands in front of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tunesmith.models.dropout import masked
from tunesmith.models.layout import Bucket, Group
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
        real = None if bucket.real is None else bucket.on("real", device)
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
    if q.device.type == "cpu" or rule.dropout > 0.0:
        found: Tensor = _Attention.apply(q, k, v, routing, rule, held, *parts)  # type: ignore[no-untyped-call]
        return found
    k, v, *parts = (_all_heads(part, q.shape[1], dim) for part, dim in [(k, 1), (v, 1), *((part, 0) for part in parts)])
    rest = iter(parts)
    return _each_bucket(
        [q, k, v], routing.layout.buckets, [(next(rest), next(rest)) if own else None for own in held], rule
    )


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


# On CPUs, and wherever weights are dropped: each delta draws from a stream of its own ------------------------------

# Keys of a row and width of a head up to which written-out products beat torch's kernel; wider heads gain nothing in
# training and would keep their weights.
_SHORT, _NARROW = 256, 16
_attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_attend_back = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward

Blocks = tuple[Tensor, Tensor, Tensor]  # of a group: q (n, H, T, d), k and v (n, H or fewer, P + T, d)


class _Kernel:
    """torch's fast CPU kernel; for the backward pass it needs the output and a number per query."""

    @staticmethod
    def forward(group: Group, blocks: Blocks, rule: Rule, keep: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        found, logs = _attend(*_repeated(blocks), **_seen(group, blocks, rule))
        return found, [logs]

    @staticmethod
    def backward(
        group: Group, blocks: Blocks, rule: Rule, grad: Tensor, out: Tensor, kept: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        settings, heads = _seen(group, blocks, rule), blocks[1].shape[1]
        d_q, d_k, d_v = _attend_back(
            grad, *_repeated(blocks), out, kept[0], 0.0, settings["is_causal"], attn_mask=settings["attn_mask"],
            scale=settings["scale"],
        )  # fmt: skip
        return d_q, _one_sum(d_k, heads), _one_sum(d_v, heads)


def _repeated(blocks: Blocks) -> list[Tensor]:
    q, k, v = blocks
    return [q, _all_heads(k, q.shape[1], 1), _all_heads(v, q.shape[1], 1)]


def _seen(group: Group, blocks: Blocks, rule: Rule) -> dict[str, Any]:
    """Say to the kernel how rows look at their keys."""
    q, before = blocks[0], _before(blocks)
    # Cells past a row's end come after all its tokens: a causal rule hides them already, at half the work of a mask.
    plain = rule.causal and not before and (rule.window is None or group.block.length <= rule.window)
    return {"is_causal": plain, "attn_mask": None if plain else _additive(group, rule, before, q), "scale": rule.scale}


def _additive(group: Group, rule: Rule, before: int, like: Tensor) -> Tensor | None:
    """Return 0 where a query may look and minus infinity where it may not: (n or 1, 1, T or 1, P + T)."""
    block = group.block
    if block.real is None and block.length <= _SHORT:
        return _full_rows(rule, block.length, before, like.dtype, like.device)
    return _as_numbers(rule.mask(block, like.device, before), like.dtype)


@lru_cache(maxsize=32)
def _full_rows(rule: Rule, length: int, before: int, dtype: torch.dtype, device: torch.device) -> Tensor | None:
    """Return the mask of rows of one length; all layers ask for the same few."""
    return _as_numbers(rule.mask(Bucket(1, length, 0, length), device, before), dtype)


def _as_numbers(seen: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if seen is None else torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, float("-inf"))


class _Products:
    """Attention written out in batched products: for short rows of narrow heads, and for dropout.

    It goes through rows and queries in pieces whose weights fit a cache, under a causal rule with the keys up to their
    end. Few weights are kept, many are computed again in the backward pass. Queries of the heads that share a key stand
    below each other, so that no key is copied and no gradient summed.
    """

    @staticmethod
    def forward(group: Group, blocks: Blocks, rule: Rule, keep: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        pieces, kept = _pieces(blocks, rule), [] if keep is None else [keep]
        few = sum(piece.size for piece in pieces) * blocks[0].shape[1] <= _KEPT
        out = blocks[0].new_empty(*blocks[0].shape[:3], blocks[2].shape[3])
        mask = _additive(group, rule, _before(blocks), blocks[0])
        for piece in pieces:
            q, k, v = piece.below(blocks)
            weights = piece.weights(q, k, mask, rule)
            kept += [weights] if few else []
            if keep is not None:
                weights = masked(weights, piece.cells(keep).reshape(weights.shape), rule.dropout)
            if len(pieces) == 1:
                return (weights @ v).view(out.shape), kept
            target = piece.queries(out)
            target.copy_((weights @ v).view(target.shape))
        return out, kept

    @staticmethod
    def backward(
        group: Group, blocks: Blocks, rule: Rule, grad: Tensor, out: Tensor, kept: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        pieces, own = _pieces(blocks, rule), list(kept)
        found = [] if len(pieces) == 1 else [part.new_zeros(part.shape) for part in blocks]
        mask = _additive(group, rule, _before(blocks), blocks[0])
        drawn = own.pop(0) if rule.dropout else None
        for piece in pieces:
            q, k, v = piece.below(blocks)
            weights = own.pop(0) if own else piece.weights(q, k, mask, rule)
            d_out = piece.queries(grad).reshape(len(q), q.shape[1], -1)
            d_weights, used = d_out @ v.transpose(1, 2), weights
            if drawn is not None:
                keep = piece.cells(drawn).reshape(weights.shape)
                used, d_weights = (masked(one, keep, rule.dropout) for one in (weights, d_weights))
            d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype)
            gradients = (
                _scaled(d_scores, k, rule.scale),
                _scaled(d_scores.transpose(1, 2), q, rule.scale),
                used.transpose(1, 2) @ d_out,
            )
            if len(pieces) == 1:
                return tuple(one.view(part.shape) for one, part in zip(gradients, blocks, strict=True))
            for to, one in zip((piece.queries(found[0]), *map(piece.keys, found[1:])), gradients, strict=True):
                to += one.view(to.shape)
        return tuple(found)


_QUERIES = {"cpu": 64}  # of a piece of a causal row; all elsewhere
_CELLS = {"cpu": 1 << 19}  # weights of a piece, which a processor's cache holds
_MANY = 1 << 27  # elsewhere
_KEPT = 1 << 20  # weights of a group that keeps them


@dataclass(frozen=True)
class _Piece:
    """Some rows and queries of a group.

    Args:
        rows: from, to.
        first: of the queries.
        last: the one after their end.
        seen: keys from the row's beginning that they may look at. [count]
    """

    rows: slice
    first: int
    last: int
    seen: int

    @property
    def size(self) -> int:
        """Weights of one head."""
        return (self.rows.stop - self.rows.start) * (self.last - self.first) * self.seen

    def queries(self, block: Tensor) -> Tensor:
        return block[self.rows, :, self.first : self.last]

    def keys(self, block: Tensor) -> Tensor:
        return block[self.rows, :, : self.seen]

    def cells(self, block: Tensor) -> Tensor:
        """Return these queries' and keys' part of (n or 1, H or 1, T or 1, P + T)."""
        rows = self.rows if block.shape[0] > 1 else slice(None)
        queries = slice(self.first, self.last) if block.shape[2] > 1 else slice(None)
        return block[rows, :, queries, : self.seen]

    def below(self, blocks: Blocks) -> list[Tensor]:
        """Return the queries, (B, H / fewer * their number, d), with keys and values, (B, seen, d); B = n * fewer."""
        parts = (self.queries(blocks[0]), self.keys(blocks[1]), self.keys(blocks[2]))
        together = parts[1].shape[0] * parts[1].shape[1]
        return [part.reshape(together, -1, part.shape[-1]) for part in parts]

    def weights(self, q: Tensor, k: Tensor, mask: Tensor | None, rule: Rule) -> Tensor:
        """Return (B, M, seen): the softmax over the keys that a query may look at."""
        if mask is None:
            return _scaled(q, k.transpose(1, 2), rule.scale).softmax(-1)
        count = self.last - self.first
        heads = k.shape[0] * q.shape[1] // (count * (self.rows.stop - self.rows.start))
        scores = q.new_empty(self.rows.stop - self.rows.start, heads, count, self.seen).copy_(self.cells(mask))
        return scores.view(len(q), q.shape[1], -1).baddbmm_(q, k.transpose(1, 2), alpha=rule.scale).softmax(-1)


def _before(blocks: Blocks) -> int:
    """P, the tokens in front of each row's own."""
    return blocks[1].shape[2] - blocks[0].shape[2]


def _pieces(blocks: Blocks, rule: Rule) -> list[_Piece]:
    """Cut a group into pieces."""
    (rows, heads, length, _), before = blocks[0].shape, _before(blocks)
    kind = blocks[0].device.type
    size = _QUERIES.get(kind, length) if rule.causal else length
    step = max(1, _CELLS.get(kind, _MANY) // (heads * min(size, length) * (before + length)))
    found = []
    for start, first in itertools.product(range(0, rows, step), range(0, length, size)):
        last = min(first + size, length)
        seen = before + (last if rule.causal else length)
        found.append(_Piece(slice(start, min(start + step, rows)), first, last, seen))
    return found


def _scaled(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Multiply (B, M, K) by (B, K, N) and a number."""
    return torch.baddbmm(b[:1, :1, :1], a, b, beta=0, alpha=scale)


def _way(q: Tensor, v: Tensor, keys: int, rule: Rule) -> type[_Kernel] | type[_Products]:
    """Choose how a group's rows attend: by the group alone, so that other deltas' rows change nothing."""
    served = q.shape[-1] == v.shape[-1] and q.dtype == v.dtype and rule.dropout == 0.0 and q.device.type == "cpu"
    slow = q.shape[-1] <= _NARROW and keys <= _SHORT and q.dtype in (torch.float32, torch.float64)
    return _Kernel if served and not slow else _Products


def _kept_weights(
    routing: Routing, rule: Rule, heads: int, held: list[bool], prefixes: Sequence[Tensor], device: torch.device
) -> list[Tensor]:
    """Draw for every bucket which attention weights stay, in the order in which a run of its delta alone draws."""
    assert routing.layout is not None
    keys, found = iter(prefixes[::2]), []
    for bucket, prefixed in zip(routing.layout.buckets, held, strict=True):
        before = next(keys).shape[1] if prefixed else 0
        source = routing.source() if routing.names is None else routing.sources.get(bucket.name or "")
        shape = torch.Size((bucket.rows, heads, bucket.length, before + bucket.length))
        found.append((source or routing.dropout).keep(shape, rule.dropout, device))
    return found


def _laid(group: Group, flat: tuple[Tensor, Tensor, Tensor], prefixes: list[Tensor], way: type) -> Blocks:
    """Lay a group's tokens out, its prefix, if one is given, in front of each row."""
    q, k, v = (group.laid(part) if way is _Kernel else group.take(part) for part in flat)
    return (q, _in_front(prefixes[0], k), _in_front(prefixes[1], v)) if prefixes else (q, k, v)


class _Attention(torch.autograd.Function):
    """Attention over a whole ragged batch as one node of the graph.

    It keeps the flat q, k and v; a node per bucket would keep padded copies of them, shared heads repeated.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, routing: Routing, rule: Rule, held: list[bool], *prefixes: Tensor
    ) -> Tensor:
        assert routing.layout is not None
        out, kept, ways, rest = q.new_empty(*q.shape[:2], v.shape[2]), list[list[Tensor]](), [], list(prefixes)
        draws = _kept_weights(routing, rule, q.shape[1], held, prefixes, q.device) if rule.dropout else []
        for group in routing.layout.groups(held):
            front = [rest.pop(0), rest.pop(0)] if held[group.numbers[0]] else []
            ways.append(_way(q, v, group.block.length + (front[0].shape[1] if front else 0), rule))
            blocks = _laid(group, (q, k, v), front, ways[-1])
            keep = torch.cat([draws[number] for number in group.numbers]) if draws else None
            found, own = ways[-1].forward(group, blocks, rule, keep)
            group.put(found, out)
            kept.append(own)
        ctx.save_for_backward(
            q, k, v, out if _Kernel in ways else None, *prefixes, *(one for own in kept for one in own)
        )
        ctx.layout, ctx.rule, ctx.held, ctx.prefixes = routing.layout, rule, held, len(prefixes)
        ctx.ways, ctx.counts = ways, [len(own) for own in kept]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, *rest = ctx.saved_tensors
        prefixes, kept = list(rest[: ctx.prefixes]), list(rest[ctx.prefixes :])
        flat = [torch.empty_like(one, memory_format=torch.contiguous_format) for one in (q, k, v)]
        d_prefixes: list[Tensor | None] = []
        for group, way, count in zip(ctx.layout.groups(ctx.held), ctx.ways, ctx.counts, strict=True):
            front = [prefixes.pop(0), prefixes.pop(0)] if ctx.held[group.numbers[0]] else []
            blocks, d_out = _laid(group, (q, k, v), front, way), group.take(grad)
            if group.block.real is not None:  # cells without a token repeat one: they must not count twice
                d_out *= group.block.on("real", grad.device).transpose(-1, -2)
            own, kept = kept[:count], kept[count:]
            found = way.backward(group, blocks, ctx.rule, d_out, group.take(out) if way is _Kernel else d_out, own)
            before = front[0].shape[1] if front else 0
            for one, to, skipped in zip(found, flat, (0, before, before), strict=True):
                group.put(one[:, :, skipped:], to)
            d_prefixes += [one[:, :, :before].sum(0) for one in found[1:]] if front else []
        return *flat, None, None, None, *d_prefixes
