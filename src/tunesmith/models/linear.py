"""The linear seam: every linear map of a model, seen in one way.

A seam stands in for the module's forward. Without a delta it is the module's own forward; with one, the delta's
patch computes the output from the input and the frozen map.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.pytorch_utils import Conv1D

from tunesmith.models.routing import Routing


class LinearSeam:
    """One linear map: y = x W^T + b, with the patches of the deltas attached to it.

    Args:
        path: dotted name of the module in the model.
        module: nn.Linear, or transformers' Conv1D, which stores W transposed.
        routing: which rows use which delta.
    """

    def __init__(self, path: str, module: nn.Module, routing: Routing) -> None:
        self.path = path
        self.module = module
        self.routing = routing
        self.patches: dict[str, nn.Module] = {}
        self.base: Callable[[Tensor], Tensor] = module.forward
        self.transposed = isinstance(module, Conv1D)

    @property
    def weight(self) -> Tensor:
        """W, (out, in); a view where the module stores it transposed."""
        weight: Tensor = self.module.weight  # type: ignore[assignment]
        return weight.t() if self.transposed else weight

    @property
    def bias(self) -> Tensor | None:
        """b, (out,), or None."""
        return self.module.bias  # type: ignore[return-value]

    @property
    def width_in(self) -> int:
        """D of the input."""
        return self.weight.shape[1]

    @property
    def width_out(self) -> int:
        """D of the output."""
        return self.weight.shape[0]

    def __call__(self, x: Tensor) -> Tensor:
        """Map x (..., in) to (..., out) with the patches of the rows' deltas."""
        spans = self.routing.spans(x, self.patches)
        if not spans:
            return self.base(x)
        if len(spans) == 1:
            return self._one(spans[0][0], x)
        dim, sizes = spans[0][1].dim, [span.size for _, span in spans]
        pieces = zip([name for name, _ in spans], x.split(sizes, dim=dim), strict=True)
        return torch.cat([self._one(name, piece) for name, piece in pieces], dim=dim)

    def _one(self, name: str | None, x: Tensor) -> Tensor:
        patch = self.patches.get(name) if name is not None else None
        if patch is None:
            return self.base(x)
        output: Tensor = patch(x, self)
        return output

    def plus_low_rank(self, x: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
        """Frozen map plus a product of low rank, in one step that keeps only x.

        y = x W^T + b + scale * (x down^T) up^T

        Args:
            x: hidden states, (..., in).
            down: (rank, in).
            up: (out, rank).
            scale: of the product.
        Returns:
            (..., out), dtype of x.
        """
        frozen = not self.weight.requires_grad and (self.bias is None or not self.bias.requires_grad)
        if frozen and x.dtype == self.weight.dtype == down.dtype:
            y: Tensor = _PlusLowRank.apply(  # type: ignore[no-untyped-call]
                x, self.weight, self.bias, down, up, scale
            )
            return y
        low = (x.to(down.dtype) @ down.t()) @ up.t()
        return self.base(x) + (scale * low).to(x.dtype)

    @torch.no_grad()
    def add_to_weight(self, change: Tensor) -> None:
        """Add to W for good; used by merge.

        Args:
            change: (out, in).
        """
        weight: Tensor = self.module.weight  # type: ignore[assignment]
        weight += (change.t() if self.transposed else change).to(weight.dtype)


class _PlusLowRank(torch.autograd.Function):
    """y = x W^T + b + s (x A^T) B^T with frozen W and b.

    Saves x and the (rank, N) product. The narrow products are written with rank as the first dimension: on CPUs
    that is two to four times faster than the other way round.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])  # (N, in)
        low = down @ flat.t()  # (rank, N)
        y = flat @ weight.t() if bias is None else torch.addmm(bias, flat, weight.t())  # (N, out)
        y.addmm_(low.t(), up.t(), alpha=scale)
        ctx.save_for_backward(flat, low, weight, down, up)
        ctx.scale = scale
        return y.view(*x.shape[:-1], y.shape[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, Tensor | None, Tensor | None, None]:
        flat, low, weight, down, up = ctx.saved_tensors
        dy = grad.reshape(-1, grad.shape[-1])  # (N, out)
        narrow = (up.t().contiguous() @ dy.t()).mul_(ctx.scale)  # (rank, N)
        d_down = narrow @ flat if ctx.needs_input_grad[3] else None
        d_up = (low @ dy).mul_(ctx.scale).t() if ctx.needs_input_grad[4] else None
        dx = None
        if ctx.needs_input_grad[0]:
            dx = (dy @ weight).addmm_(narrow.t(), down).view(*grad.shape[:-1], flat.shape[-1])
        return dx, None, None, d_down, d_up, None


def is_linear(module: nn.Module) -> bool:
    """Say whether a module is a linear map that the seam can open.

    Args:
        module: any module.
    Returns:
        True for nn.Linear and transformers' Conv1D.
    """
    return isinstance(module, nn.Linear | Conv1D)
