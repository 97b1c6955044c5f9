"""Linear maps that read the same tensor, as q, k and v do, run as one node of the graph.

The tensor is read once for all their low-rank products and kept once; its gradient is added up in place. Which maps
belong together is seen while the model runs: those that are called one after another with the very same tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, ref

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tunesmith.models.low_rank import across, added, in_shape, narrowed, rows_apart, summed, summed_across
from tunesmith.models.products import add_product, adds_onto, chosen, frozen_product

if TYPE_CHECKING:
    from tunesmith.models.linear import LinearSeam


class Joint:
    """The maps of one model that run together, and what was computed ahead for those not called yet."""

    def __init__(self) -> None:
        self._groups: dict[LinearSeam, list[LinearSeam]] = {}  # by the map that is called first
        self._last: tuple[LinearSeam, LinearSeam, ReferenceType[Tensor]] | None = None  # its group, the map, its input
        self._ahead: dict[LinearSeam, tuple[ReferenceType[Tensor], tuple[int, bool], Tensor]] = {}
        self._apart: set[LinearSeam] = set()  # that some pass left out, as models with experts do

    def __getstate__(self) -> dict[str, Any]:
        """Let a model be copied: what belongs together is seen again."""
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin anew."""
        self.__init__()  # type: ignore[misc]

    def run(self, seam: LinearSeam, x: Tensor) -> Tensor | None:
        """Map with all maps that will read the same tensor, or give what was computed ahead.

        Args:
            seam: that is called.
            x: its input, (..., in).
        Returns:
            (..., out); None where the map has to run by itself.
        """
        ahead = self._ahead.pop(seam, None)
        if ahead is not None and ahead[0]() is x and ahead[1] == _state(x):
            return ahead[2]
        self._note(seam, x)
        group = self._groups.get(seam)
        if group is None:
            return None
        self._part_unread()
        group = [one for one in group if one not in self._apart]
        parts = [_part(one, x) for one in (seam, *group)]
        if not group or any(part is None for part in parts):
            return None
        first, *rest = joined([part for part in parts if part is not None], x)
        self._ahead = {one: (ref(x), _state(x), y) for one, y in zip(group, rest, strict=True)}
        return first

    def _note(self, seam: LinearSeam, x: Tensor) -> None:
        """Remember the call; a map that reads the same tensor as the one before it joins that one's group."""
        if self._last is None or self._last[2]() is not x or seam in self._apart:
            self._last = seam, seam, ref(x)
            return
        first = self._last[0]
        group = self._groups.setdefault(first, [])
        if seam not in group and seam is not first:
            group.append(seam)
        self._last = first, seam, self._last[2]

    def _part_unread(self) -> None:
        """Drop what was computed ahead and never read; it will not be computed ahead again."""
        self._apart.update(self._ahead)
        self._ahead.clear()

    def forget(self) -> None:
        """Be told that a pass is over."""
        self._part_unread()
        self._last = None


@dataclass(frozen=True)
class Part:
    """One map of a group.

    Args:
        weight: W, (out, in), frozen.
        bias: b, (out,), or None.
        factors: down (rank, in) and up (out, rank), or nothing.
        scale: of their product.
    """

    weight: Tensor
    bias: Tensor | None
    factors: tuple[Tensor, ...]
    scale: float


def _state(x: Tensor) -> tuple[int, bool]:
    """Tell a tensor from what it was before it was changed in place, where torch counts that, or read for gradients."""
    return 0 if x.is_inference() else x._version, torch.is_grad_enabled()


def _part(seam: LinearSeam, x: Tensor) -> Part | None:
    """Return what a map does with its active delta; None where that is more than one low-rank product."""
    if (
        not seam.fused
        or seam.exact
        or x.dtype != seam.stored.dtype
        or (seam.bias is not None and seam.bias.requires_grad)
    ):
        return None
    found = seam.factors_of(seam.routing.active)
    if found is None:
        return None
    return Part(seam.weight, seam.bias, tuple(found[:2]), found[2] if found else 0.0)


def joined(parts: Sequence[Part], x: Tensor) -> tuple[Tensor, ...]:
    """Map one tensor by several maps.

    y_i = x W_i^T + b_i + scale_i * (x down_i^T) up_i^T

    Args:
        parts: the maps.
        x: (..., in).
    Returns:
        Per map, (..., out_i).
    """
    factors = [factor for part in parts for factor in part.factors]
    found: tuple[Tensor, ...] = _Joined.apply(x, tuple(parts), *factors)  # type: ignore[no-untyped-call]
    return found


class _Joined(torch.autograd.Function):
    """It keeps x once, and the (rank, N) products of all maps together."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, parts: tuple[Part, ...], *factors: Tensor) -> tuple[Tensor, ...]:
        flat = x.reshape(-1, x.shape[-1])
        ctx.narrow, ctx.onto = chosen(), adds_onto(flat, chosen())
        adapted = [part for part in parts if part.factors]
        downs = torch.cat([part.factors[0] for part in adapted]).to(x.dtype) if adapted else None  # (all ranks, in)
        ups = [part.factors[1].to(x.dtype) for part in adapted]
        lows = None if downs is None else narrowed(downs, flat)  # (all ranks, N)
        ctx.ranks = [len(part.factors[0]) for part in adapted]
        low_of, up_of = iter(() if lows is None else lows.split(ctx.ranks)), iter(ups)
        found = []
        for part in parts:
            if not part.factors:
                y = frozen_product(flat, part.weight, part.bias, ctx.narrow)
            elif ctx.onto:
                y = add_product(added(next(low_of), next(up_of).t(), part.scale, part.bias), flat, part.weight)
            else:
                y = frozen_product(flat, part.weight, part.bias, ctx.narrow)
                y.addmm_(next(low_of).t(), next(up_of).t(), alpha=part.scale)
            found.append(in_shape(y, x))
        kept = () if downs is None else (x, downs, lows)  # x as it came: it may be had again
        ctx.save_for_backward(*kept, *ups, *(part.weight for part in parts))
        ctx.scales, ctx.adapted = [part.scale for part in adapted], [bool(part.factors) for part in parts]
        ctx.tokens = len(flat)
        ctx.set_materialize_grads(False)
        return tuple(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        some = any(ctx.adapted)
        x, downs, lows, *rest = ctx.saved_tensors if some else (None, None, None, *ctx.saved_tensors)
        ups, weights = rest[: len(ctx.ranks)], rest[len(ctx.ranks) :]
        flat = [None if grad is None else grad.reshape(-1, grad.shape[-1]) for grad in grads]  # (N, out_i)
        if all(grad is None for grad in flat):
            return (None,) * (2 + 2 * len(ctx.ranks))
        narrow = _narrow(ctx, [g for g, own in zip(flat, ctx.adapted, strict=True) if own], ups) if some else None
        dx = _into_input(ctx, flat, weights, narrow, downs) if ctx.needs_input_grad[0] else None
        d_x = None if dx is None else dx.view(*next(g for g in grads if g is not None).shape[:-1], -1)
        if narrow is None:
            return d_x, None
        d_downs = summed(narrow, x.reshape(-1, x.shape[-1])).split(ctx.ranks)
        found: list[Tensor | None] = []
        outputs = [grad for grad, own in zip(flat, ctx.adapted, strict=True) if own]
        for d_down, low, grad, scale in zip(d_downs, lows.split(ctx.ranks), outputs, ctx.scales, strict=True):
            found += [None, None] if grad is None else [d_down, summed_across(low, grad).mul_(scale)]
        return d_x, None, *found


def _narrow(ctx: Any, grads: Sequence[Tensor | None], ups: Sequence[Tensor]) -> Tensor:
    """Return the gradients of all narrow products, (all ranks, N), scales included."""
    found = rows_apart(sum(ctx.ranks), ctx.tokens, ups[0])
    for own, grad, up, scale in zip(found.split(ctx.ranks), grads, ups, ctx.scales, strict=True):
        if grad is None:
            own.zero_()
        else:
            narrowed(across(up), grad, own).mul_(scale)
    return found


def _into_input(
    ctx: Any, grads: Sequence[Tensor | None], weights: Sequence[Tensor], narrow: Tensor | None, downs: Tensor | None
) -> Tensor:
    """Add up the input's gradient in place, (N, in)."""
    dx: Tensor | None = None
    if ctx.onto and narrow is not None and downs is not None:
        dx = narrow.t() @ downs
    for grad, weight in zip(grads, weights, strict=True):
        if grad is None:
            continue
        if dx is None:
            dx = frozen_product(grad, weight.t(), None, ctx.narrow)
        elif ctx.onto:
            add_product(dx, grad, weight.t())
        else:
            dx += frozen_product(grad, weight.t(), None, ctx.narrow)
    assert dx is not None
    if not ctx.onto and narrow is not None and downs is not None:
        dx.addmm_(narrow.t(), downs)
    return dx
