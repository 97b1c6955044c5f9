"""Norms and activations that transformers computes in many passes over memory, in few.

What stands in for a module is tried on drawn numbers when a model is opened, and used only if it gives the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tunesmith.models.compiling import compiled
from tunesmith.models.low_rank import in_shape
from tunesmith.models.routing import Routing

_TOLERANCE, _HALF_TOLERANCE = 2e-6, 2e-2  # of the largest number: rounding in float32, and twice in 16 bits

Function = Callable[[Tensor], Tensor]


class FusedSeam:
    """Stands in for the forward of one norm or activation.

    Args:
        module: that it stands in for.
        function: that gives the same.
        routing: says whether it may.
    """

    def __init__(self, module: nn.Module, function: Function, routing: Routing) -> None:
        self.module, self.function, self.routing = module, function, routing
        self.base: Callable[..., Any] = module.forward

    def __call__(self, x: Tensor, *rest: Any, **settings: Any) -> Any:
        """Compute in few passes; as the module does where it trains, or computes in a type that is not served."""
        if not self.routing.quick:
            return self.base(x, *rest, **settings)
        weight = getattr(self.module, "weight", None)
        if rest or settings or not _served(x) or (weight is not None and _unlike(weight, x)):
            return self.base(x, *rest, **settings)
        return self.function(x)


def _served(x: Tensor) -> bool:
    """Say whether there are better forms for a tensor: in float32, and in 16 bits, where modules keep copies of 32."""
    return x.dtype == torch.float32 or x.dtype.itemsize == 2


def _unlike(weight: Tensor, x: Tensor) -> bool:
    return weight.requires_grad or weight.dtype != x.dtype or weight.device != x.device


def fused_seam(module: nn.Module, routing: Routing) -> FusedSeam | None:
    """Find out whether a module can be computed in fewer passes.

    Args:
        module: any module.
        routing: of the model.
    Returns:
        What stands in for its forward; None where there is nothing better.
    """
    found = list(_candidates(module))
    if not found:
        return None
    x = _drawn(module)
    with torch.no_grad():
        try:
            wanted = module(x)
        except (RuntimeError, ValueError, TypeError, IndexError):  # it wants other input: it stays as it is
            return None
        bound = (_TOLERANCE if x.dtype == torch.float32 else _HALF_TOLERANCE) * wanted.abs().max()
        same = [function for function in found if (function(x) - wanted).abs().max() <= bound]
    return FusedSeam(module, same[0], routing) if same else None


def _candidates(module: nn.Module) -> Iterator[Function]:
    """What a module may compute, told by its parameters, its settings and its name."""
    own = dict(module.named_parameters())
    name = type(module).__name__
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if name.endswith("Norm") and list(own) == ["weight"] and isinstance(epsilon, float):
        if own["weight"].dim() == 1 and own["weight"].device.type != "meta" and _served(own["weight"]):
            yield partial(_rms_norm, module, epsilon, 0.0)
            if own["weight"].dtype == torch.float32:
                yield partial(_rms_norm, module, epsilon, 1.0)
    elif "GELU" in name and not own and not isinstance(module, nn.GELU):
        yield nn.functional.gelu
        yield partial(nn.functional.gelu, approximate="tanh")


def _drawn(module: nn.Module) -> Tensor:
    """Numbers to try a module on: some rows of its width, large and small ones."""
    weight = getattr(module, "weight", None)
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(8, 64 if weight is None else len(weight), generator=draw)
    x = x * torch.logspace(-3, 1, 8)[:, None]
    return x if weight is None else x.to(weight)


def _rms_norm(module: nn.Module, epsilon: float, offset: float, x: Tensor) -> Tensor:
    weight: Tensor = module.weight  # type: ignore[assignment]
    y: Tensor = _RmsNorm.apply(x, weight + offset if offset else weight, epsilon)  # type: ignore[no-untyped-call]
    return y


class _RmsNorm(torch.autograd.Function):
    """y = w x / sqrt(mean(x^2) + epsilon), with a frozen w; on a GPU by torch's own kernel.

    It computes in float32 and keeps x as it came.

    Source: Zhang and Sennrich 2019, arXiv 1910.07467.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        if _has_kernel(x):
            y, inverse = torch.ops.aten._fused_rms_norm(x, weight.shape, weight, epsilon)
        else:
            length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
            inverse = length.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()  # (..., 1)
            y = normed(x, weight, inverse)
        ctx.save_for_backward(x, weight, inverse)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x, weight, inverse = ctx.saved_tensors
        if _has_kernel(x):
            given = (grad.contiguous(), x, weight.shape, inverse, weight, [True, False])
            return torch.ops.aten._fused_rms_norm_backward(*given)[0], None, None
        scaled, wide = grad.float() * weight.float(), x.float()
        along = torch.linalg.vecdot(scaled, wide)[..., None].mul_(inverse**3).div_(-x.shape[-1])
        return torch.addcmul(scaled.mul_(inverse), wide, along).to(x.dtype), None, None


def _has_kernel(x: Tensor) -> bool:
    """Say whether torch has a kernel for norms of a tensor: on GPUs, in the form that gives the inverse lengths too."""
    return x.device.type == "cuda" and len(torch.ops.aten._fused_rms_norm.default._schema.returns) == 2


def _scaled_rows(x: Tensor, weight: Tensor, inverse: Tensor) -> Tensor:
    return (x.float() * inverse * weight.float()).to(x.dtype)


_scaled_half = compiled(_scaled_rows)


def normed(x: Tensor, weight: Tensor, inverse: Tensor) -> Tensor:
    """Scale rows.

    Args:
        x: (..., D).
        weight: (D,).
        inverse: (..., 1), float32.
    Returns:
        (..., D), dtype of x.
    """
    if x.dtype.itemsize > 2:
        return torch.mul(x, inverse).mul_(weight)
    return in_shape(_scaled_half(x.flatten(0, -2), weight, inverse.flatten(0, -2)), x)
