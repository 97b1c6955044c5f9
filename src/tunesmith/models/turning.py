"""Rotary positions in two passes over q and k, where transformers takes five.

transformers' attention layers turn q and k with a function of their module. A layer of an opened model runs a copy of
its forward that finds another function under this name; the layer's class and its module stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tunesmith.models.compiling import compiled
from tunesmith.models.routing import Routing

_NAME = "apply_rotary_pos_emb"
_TOLERANCE = 2e-6  # of the largest number: rounding in float32


class TurningSeam:
    """Stands in for the forward of one attention layer.

    Args:
        module: that it stands in for.
        forward: a function like its class's, with the other rotary function.
        routing: says whether it may.
    """

    def __init__(self, module: nn.Module, forward: Callable[..., Any], routing: Routing) -> None:
        self.module, self.forward, self.routing = module, forward, routing

    def __call__(self, *args: Any, **settings: Any) -> Any:
        """Turn q and k in few passes, or as the module does."""
        run = self.forward if self.routing.quick else type(self.module).forward
        return run(self.module, *args, **settings)


def turning_seam(module: nn.Module, routing: Routing) -> TurningSeam | None:
    """Find out whether a module turns q and k by a function that has a faster form.

    Args:
        module: any module.
        routing: of the model.
    Returns:
        What stands in for its forward; None where there is nothing better.
    """
    own = None if "forward" in module.__dict__ else _with_ours(type(module).forward)
    return None if own is None else TurningSeam(module, own, routing)


@lru_cache
def _with_ours(run: Callable[..., Any]) -> Callable[..., Any] | None:
    """Copy a forward that turns by our function; once for all layers of a class, None where that is not the same."""
    if not isinstance(run, FunctionType) or _NAME not in run.__code__.co_names or not _same(run.__globals__.get(_NAME)):
        return None
    known = {**run.__globals__, _NAME: turned}
    own = FunctionType(run.__code__, known, run.__name__, run.__defaults__, run.__closure__)
    own.__kwdefaults__ = run.__kwdefaults__
    return own


@torch.no_grad()
def _same(turn: Any) -> bool:
    """Compare a model's function with ours on drawn numbers, for heads of q and fewer of k."""
    draw = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, heads, 5, 8, generator=draw) for heads in (4, 2))
    for width in (8, 4):  # models that turn a part of each head are told so by narrower cosines
        cos, sin = (torch.randn(2, 5, width, generator=draw) for _ in range(2))
        try:
            wanted = turn(q, k, cos, sin)
        except (RuntimeError, ValueError, TypeError, IndexError):  # it wants other input, and never gets this one
            if width == q.shape[-1]:
                return False
            continue
        pairs = zip(wanted, turned(q, k, cos, sin), strict=True)
        if not all((one - other).abs().max() <= _TOLERANCE for one, other in pairs):
            return False
    return True


def turned(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
    """Turn the heads of q and k by their positions.

    Source: Su et al. 2021, arXiv:2104.09864; halves of a head are turned against each other, as transformers has it.

    Args:
        q: (B, H, T, d).
        k: (B, H or fewer, T, d).
        cos: (B or 1, T, d or fewer), without gradient; what is left of a head is not turned.
        sin: as cos.
        unsqueeze_dim: where cos and sin lack the heads.
    Returns:
        Both, turned.
    """
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    first: Tensor = _Turned.apply(q, cos, sin)  # type: ignore[no-untyped-call]
    second: Tensor = _Turned.apply(k, cos, sin)  # type: ignore[no-untyped-call]
    return first, second


class _Turned(torch.autograd.Function):
    """(a, b) -> (a cos1 - b sin1, b cos2 + a sin2), a and b the halves of a head; it keeps nothing but cos and sin."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        if _in_one_kernel(x, cos):
            return _on_gpu(x, cos, sin)
        (a, b), (cos1, cos2), (sin1, sin2) = (part[..., : cos.shape[-1]].chunk(2, -1) for part in (x, cos, sin))
        return _joined(x, (a, cos1, b, sin1, -1.0), (b, cos2, a, sin2, 1.0))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        if _in_one_kernel(grad, cos):
            first, second = sin.chunk(2, -1)
            return _on_gpu(grad, cos, torch.cat([second, first], -1).neg_()), None, None
        (a, b), (cos1, cos2), (sin1, sin2) = (part[..., : cos.shape[-1]].chunk(2, -1) for part in (grad, cos, sin))
        return _joined(grad, (a, cos1, b, sin2, 1.0), (b, cos2, a, sin1, -1.0)), None, None


def _in_one_kernel(x: Tensor, cos: Tensor) -> bool:
    """Say whether whole heads are turned on a GPU."""
    return x.device.type == "cuda" and x.shape[-1] == cos.shape[-1]


def _on_gpu(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn (B, H, T, d) as it lies in memory, token after token."""
    rows, heads, tokens, width = x.shape
    flat = x.transpose(1, 2).reshape(rows * tokens, heads, width)
    own = [part.transpose(1, 2).expand(rows, -1, -1, -1).reshape(rows * tokens, -1, width) for part in (cos, sin)]
    return _heads_turned(flat, *own).view(rows, tokens, heads, width).transpose(1, 2)


def _turn_heads(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    (a, b), (cos1, cos2), (sin1, sin2) = (part.chunk(2, -1) for part in (x, cos, sin))
    return torch.cat([a * cos1 - b * sin1, b * cos2 + a * sin2], -1)


_heads_turned = compiled(_turn_heads)

_Half = tuple[Tensor, Tensor, Tensor, Tensor, float]


def _joined(like: Tensor, *halves: _Half) -> Tensor:
    """Compute x cos + sign * y sin for both halves of the heads, beside each other and what is not turned."""
    (x, cos, *_), *_ = halves
    found, width = torch.empty_like(like, dtype=torch.promote_types(x.dtype, cos.dtype)), 2 * x.shape[-1]
    if width < like.shape[-1]:
        found[..., width:] = like[..., width:]
    for to, (x, cos, y, sin, sign) in zip(found[..., :width].chunk(2, -1), halves, strict=True):
        torch.mul(x, cos, out=to)
        to.addcmul_(y, sin, value=sign)
    return found
