"""Gated feed-forward layers on a GPU: activation and product in one pass over the numbers, in both directions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tunesmith.models.compiling import compiled
from tunesmith.models.low_rank import in_shape
from tunesmith.models.routing import Routing
from tunesmith.models.sharding import gathered

_PARTS = {"gate_proj", "up_proj", "down_proj", "act_fn"}
_TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 5e-3}


class GatedSeam:
    """Stands in for the forward of one gated feed-forward layer: down(silu(gate(x)) * up(x)).

    Args:
        module: that it stands in for.
        routing: says whether it may.
    """

    def __init__(self, module: nn.Module, routing: Routing) -> None:
        self.module, self.routing = module, routing

    def __call__(self, x: Tensor, *rest: Any, **settings: Any) -> Any:
        """Compute in few passes on a GPU; as the module does elsewhere."""
        if rest or settings or not self.routing.quick or x.device.type != "cuda":
            return type(self.module).forward(self.module, x, *rest, **settings)
        return self.quickly(x)

    def quickly(self, x: Tensor) -> Tensor:
        """Compute in few passes.

        Args:
            x: (..., D).
        Returns:
            (..., D).
        """
        parts: Any = self.module
        y: Tensor = parts.down_proj(_Gated.apply(parts.gate_proj(x), parts.up_proj(x)))  # type: ignore[no-untyped-call]
        return y


def gated_seam(module: nn.Module, routing: Routing) -> GatedSeam | None:
    """Find out whether a module is a gated feed-forward layer, by its parts and by drawn numbers.

    Args:
        module: any module.
        routing: of the model.
    Returns:
        What stands in for its forward; None for another module.
    """
    parts = dict(module.named_children())
    if set(parts) != _PARTS or "forward" in module.__dict__ or not isinstance(parts["gate_proj"], nn.Linear):
        return None
    found, weight = GatedSeam(module, routing), parts["gate_proj"].weight
    if weight.device.type == "meta" or weight.dtype not in _TOLERANCE:
        return None
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(4, parts["gate_proj"].in_features, generator=draw).to(weight.device, weight.dtype)
    with torch.no_grad(), gathered(module):
        wanted, ours = module(x), found.quickly(x)
    bound = _TOLERANCE[weight.dtype] * wanted.abs().max()  # none where a map is all zeros, which would hide the rest
    return found if bound > 0 and (ours - wanted).abs().max() <= bound else None


class _Gated(torch.autograd.Function):
    """silu(gate) * up; it keeps gate and up."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return gated(gate, up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        first, second = _gated_back(*(part.flatten(0, -2) for part in (grad, *ctx.saved_tensors)))
        return first.view(grad.shape), second.view(grad.shape)


def _forward(gate: Tensor, up: Tensor) -> Tensor:
    return nn.functional.silu(gate) * up


def _backward(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    share = torch.sigmoid(gate)
    return grad * up * share * (1 + gate * (1 - share)), grad * gate * share


_gated, _gated_back = compiled(_forward), compiled(_backward)


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """Compute silu(gate) * up.

    Args:
        gate: (..., F).
        up: (..., F).
    Returns:
        (..., F).
    """
    return in_shape(_gated(gate.flatten(0, -2), up.flatten(0, -2)), gate)
