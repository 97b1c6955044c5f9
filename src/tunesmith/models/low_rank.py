"""A frozen linear map plus low-rank products, as one node of the graph.

The narrow products are written with rank as the first dimension: on CPUs that is two to four times faster than the
other way round. Only the input and the (rank, N) products are kept for the backward pass. Beside a map in 16 bits the
factors, whose own type is float32, are rounded for the products, which add up in float32, as their gradients do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tunesmith.models.products import add_product, adds_onto, chosen, frozen_product, is_small
from tunesmith.models.quantized import dense, held_linear, is_quantised

_ALIGNED = 8  # numbers of 16 bits in 16 bytes


def frozen_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """y = x W^T + b, keeping nothing for the backward pass but W as it is held.

    Args:
        x: (..., in).
        weight: W, (out, in), frozen, plain or quantised.
        bias: b, (out,), or None.
    Returns:
        (..., out).
    """
    if chosen() is None and not is_quantised(weight) and not weight.requires_grad and is_small(weight):
        return nn.functional.linear(x, weight, bias)  # torch's own node keeps no more and costs less
    y: Tensor = _LowRank.apply(x, weight, bias, (), ())  # type: ignore[no-untyped-call]
    return y


def one_low_rank(x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """y = x W^T + b + scale * (x down^T) up^T.

    Args:
        x: (..., in).
        weight: W, (out, in), frozen.
        bias: b, (out,), or None.
        down: (rank, in).
        up: (out, rank).
        scale: of the product.
    Returns:
        (..., out).
    """
    y: Tensor = _LowRank.apply(x, weight, bias, (), (scale,), down, up)  # type: ignore[no-untyped-call]
    return y


def grouped_low_rank(
    x: Tensor, weight: Tensor, bias: Tensor | None, sizes: Sequence[int], factors: Sequence[tuple[Any, ...]]
) -> Tensor:
    """One frozen map for all tokens, and to each stretch of tokens its own low-rank product.

    Args:
        x: (..., in), N tokens together.
        weight: W, (out, in), frozen.
        bias: b, (out,), or None.
        sizes: tokens of each stretch, in the order of x.
        factors: (down, up, scale) of each stretch; () for none.
    Returns:
        (..., out).
    """
    stretches: list[tuple[int, int]] = []
    scales: list[float] = []
    tensors: list[Tensor] = []
    start = 0
    for size, found in zip(sizes, factors, strict=True):
        if found:
            stretches.append((start, start + size))
            tensors += found[:2]
            scales.append(found[2])
        start += size
    y: Tensor = _LowRank.apply(x, weight, bias, tuple(stretches), tuple(scales), *tensors)  # type: ignore[no-untyped-call]
    return y


def _even(parts: Sequence[tuple[int, int]], factors: Sequence[Tensor], tokens: int) -> bool:
    """Whether stretches of one size cover all tokens and have ranks near enough to pad them to the largest."""
    ranks = [len(down) for down in factors[::2]]
    size = tokens // max(1, len(parts))
    return (
        len(parts) > 1
        and size * len(parts) == tokens
        and all(end - start == size for start, end in parts)
        and max(ranks) * len(ranks) <= 2 * sum(ranks)
    )


def _stacked(factors: Sequence[Tensor], scales: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    """Return all downs (K, r, in), all scaled ups (K, r, out) and the scales (K, 1, 1); zeros fill up lower ranks."""
    downs, ups = factors[::2], [up.t() for up in factors[1::2]]
    rank = max(len(down) for down in downs)
    rows = []
    for found in (downs, ups):
        zeros = found[0].new_zeros(rank, found[0].shape[1])
        filled = [part for own in found for part in ((own,) if len(own) == rank else (own, zeros[len(own) :]))]
        rows.append(torch.cat(filled).view(len(found), rank, -1))
    each = torch.tensor(scales, dtype=rows[1].dtype, device=rows[1].device)[:, None, None]
    return rows[0], rows[1].mul_(each), each


class _LowRank(torch.autograd.Function):
    """Several low-rank products beside one frozen map. No stretches: the one product is for all tokens.

    Stretches of one size are one batched product; others follow one another. A quantised W is kept as it is held and
    read back in each direction.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stretches: tuple[tuple[int, int], ...],
        scales: tuple[float, ...],
        *factors: Tensor,
    ) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])  # (N, in)
        factors = tuple(factor.to(x.dtype) for factor in factors)
        parts = stretches or (((0, len(flat)),) if factors else ())
        ctx.quantised = weight if is_quantised(weight) else None
        held, narrow = ctx.quantised is not None, chosen()
        ctx.narrow = None if held and narrow is not None and narrow.keeps else narrow  # W read back is a passing copy
        ctx.onto = not held and not stretches and len(factors) > 0 and adds_onto(flat, ctx.narrow)
        ctx.even = _even(parts, factors, len(flat))
        if ctx.onto:
            lows = [narrowed(factors[0], flat)]  # (rank, n)
            y = add_product(added(lows[0], factors[1].t(), scales[0], bias), flat, weight)
            return _LowRank._keep(ctx, x, weight, factors, lows, (parts, scales), y)
        y = held_linear(flat, weight, bias) if held else frozen_product(flat, weight, bias, ctx.narrow)  # (N, out)
        if ctx.even:
            downs, ups, _ = _stacked(factors, scales)
            blocks = flat.view(len(parts), -1, flat.shape[1])  # (K, n, in)
            lows = [downs @ blocks.transpose(1, 2)]  # (K, r, n)
            y.view(len(parts), -1, y.shape[1]).baddbmm_(lows[0].transpose(1, 2), ups)
        else:
            lows = []
            for (start, end), scale, down, up in zip(parts, scales, factors[::2], factors[1::2], strict=True):
                low = narrowed(down, flat[start:end])  # (rank, n)
                y[start:end].addmm_(low.t(), up.t(), alpha=scale)
                lows.append(low)
        return _LowRank._keep(ctx, x, weight, factors, lows, (parts, scales), y)

    @staticmethod
    def _keep(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        factors: Sequence[Tensor],
        lows: list[Tensor],
        rest: tuple[Any, Any],
        y: Tensor,
    ) -> Tensor:
        kept = None if ctx.quantised is not None else weight
        ctx.save_for_backward(x if factors else None, kept, *factors, *lows)  # x as it came: it may be had again
        ctx.parts, ctx.scales = rest
        return in_shape(y, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *rest = ctx.saved_tensors
        flat = None if x is None else x.reshape(-1, x.shape[-1])
        factors, lows = rest[: 2 * len(ctx.parts)], rest[2 * len(ctx.parts) :]
        dy = grad.reshape(-1, grad.shape[-1])  # (N, out)
        weight = weight if ctx.quantised is None else dense(ctx.quantised)
        if ctx.onto:
            assert flat is not None
            dx, found = _gradients_onto(ctx, (flat, dy, weight), factors, lows[0])
        else:
            dx = frozen_product(dy, weight.t(), None, ctx.narrow) if ctx.needs_input_grad[0] else None
            found = (_even_gradients if ctx.even else _gradients)(ctx, (flat, dy, dx), factors, lows)
        d_bias = dy.sum(0) if ctx.needs_input_grad[2] else None
        d_x = None if dx is None else dx.view(*grad.shape[:-1], dx.shape[-1])
        return d_x, None, d_bias, None, None, *found


def in_shape(y: Tensor, x: Tensor) -> Tensor:
    """Give a product the shape of its input.

    Args:
        y: (N, out), made just now and held by nobody else.
        x: (..., in), N tokens together.
    Returns:
        (..., out), for torch no view: what comes next may change it in place, which torch forbids views that a node
        of our own gives.
    """
    found: Tensor = torch.ops.aten._unsafe_view(y, (*x.shape[:-1], y.shape[-1]))
    return found


def _on_gpu(x: Tensor) -> bool:
    return x.device.type == "cuda"


def narrowed(factor: Tensor, x: Tensor, out: Tensor | None = None) -> Tensor:
    """Compute factor x^T.

    Args:
        factor: (rank, K).
        x: (N, K).
        out: (rank, N), from `rows_apart`, to write to; a new one when None.
    Returns:
        (rank, N).
    """
    if out is None and not _on_gpu(x):
        return factor @ x.t()
    return torch.mm(factor, x.t(), out=rows_apart(len(factor), len(x), x) if out is None else out)


def rows_apart(rows: int, tokens: int, like: Tensor) -> Tensor:
    """Make room for numbers of each token, row after row.

    A GPU's kernels read numbers of 16 bits several times as fast where every row begins at a multiple of 16 bytes.

    Args:
        rows: how many.
        tokens: N.
        like: says of which type, and where.
    Returns:
        (rows, N), not filled; on a GPU a part of something wider.
    """
    step = _ALIGNED if _on_gpu(like) else 1
    return like.new_empty(rows, -(-tokens // step) * step)[:, :tokens]


def across(up: Tensor) -> Tensor:
    """Turn a factor for `narrowed`.

    Args:
        up: (out, rank).
    Returns:
        (rank, out); copied where products with a copy are faster.
    """
    return up.t() if _on_gpu(up) and up.shape[1] % _ALIGNED == 0 else up.t().contiguous()


def summed_across(low: Tensor, dy: Tensor) -> Tensor:
    """Compute dy^T low^T in the type of `summed`.

    Args:
        low: (rank, N).
        dy: (N, out).
    Returns:
        (out, rank); on a GPU laid out as a factor is, so that its gradient needs no copy.
    """
    return summed(dy.t(), low.t()) if _on_gpu(dy) else summed(low, dy).t()


def added(low: Tensor, up: Tensor, scale: float, bias: Tensor | None = None) -> Tensor:
    """Compute scale * low^T up + bias.

    Args:
        low: (rank, N).
        up: (rank, out).
        scale: of the product.
        bias: (out,) or None.
    Returns:
        (N, out).
    """
    if bias is not None:
        return torch.addmm(bias, low.t(), up, alpha=scale)
    found = low.new_empty(low.shape[1], up.shape[1])
    return torch.addmm(found, low.t(), up, beta=0, alpha=scale, out=found)


def _gradients_onto(
    ctx: Any, sides: tuple[Tensor, Tensor, Tensor], factors: Sequence[Tensor], low: Tensor
) -> tuple[Tensor | None, list[Tensor | None]]:
    """Return the input's and the factors' gradients where the frozen product is added last."""
    (x, dy, weight), (down, up), scale = sides, factors, ctx.scales[0]
    narrow = narrowed(across(up), dy)  # (rank, N)
    dx = add_product(added(narrow, down, scale), dy, weight.t()) if ctx.needs_input_grad[0] else None
    d_down = summed(narrow, x).mul_(scale) if ctx.needs_input_grad[5] else None
    return dx, [d_down, summed_across(low, dy).mul_(scale) if ctx.needs_input_grad[6] else None]


# x (N, in), which only the factors need, dy (N, out) and dx (N, in), which grows
_Sides = tuple[Tensor | None, Tensor, Tensor | None]


def _gradients(ctx: Any, sides: _Sides, factors: Sequence[Tensor], lows: Sequence[Tensor]) -> list[Tensor | None]:
    """Return the factors' gradients, stretch after stretch."""
    flat, dy, dx = sides
    found: list[Tensor | None] = []
    for number, (start, end) in enumerate(ctx.parts):
        assert flat is not None
        down, up = factors[2 * number : 2 * number + 2]
        part = dy[start:end]
        narrow = narrowed(across(up), part).mul_(ctx.scales[number])  # (rank, n)
        wanted = ctx.needs_input_grad[5 + 2 * number : 7 + 2 * number]
        found.append(summed(narrow, flat[start:end]) if wanted[0] else None)
        found.append(summed_across(lows[number], part).mul_(ctx.scales[number]) if wanted[1] else None)
        if dx is not None:
            dx[start:end].addmm_(narrow.t(), down)
    return found


def summed(a: Tensor, b: Tensor) -> Tensor:
    """Multiply matrices, or stacks of them; numbers of 16 bits give sums of 32 where a GPU can write them.

    Args:
        a: (..., M, K).
        b: (..., K, N).
    Returns:
        (..., M, N), float32 or the type of both.
    """
    if a.dtype.itemsize > 2 or a.device.type != "cuda":
        return a @ b
    product = torch.bmm if a.dim() == 3 else torch.mm
    found: Tensor = product(a, b, out_dtype=torch.float32)
    return found


def _even_gradients(ctx: Any, sides: _Sides, factors: Sequence[Tensor], lows: Sequence[Tensor]) -> list[Tensor | None]:
    """Return the factors' gradients from one batched product for all stretches."""
    flat, dy, dx = (side if side is None else side.view(len(ctx.parts), -1, side.shape[1]) for side in sides)
    assert flat is not None and dy is not None
    downs, ups, scales = _stacked(factors, ctx.scales)
    narrow = ups @ dy.transpose(1, 2)  # (K, r, n)
    d_downs, d_ups = summed(narrow, flat), summed(lows[0], dy).mul_(scales)  # (K, r, in), (K, r, out)
    if dx is not None:
        dx.baddbmm_(narrow.transpose(1, 2), downs)
    found: list[Tensor | None] = []
    for number, down in enumerate(factors[::2]):
        wanted, rank = ctx.needs_input_grad[5 + 2 * number : 7 + 2 * number], len(down)
        found.append(d_downs[number, :rank] if wanted[0] else None)
        found.append(d_ups[number, :rank].t() if wanted[1] else None)
    return found
