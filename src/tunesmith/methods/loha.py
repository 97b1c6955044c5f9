"""LoHa: the elementwise product of two low-rank matrices beside each frozen linear map."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.methods.base import LayerMethod, PeftFolder
from tunesmith.models.delta import Delta
from tunesmith.models.linear import ConvSeam, EmbeddingSeam, LinearSeam
from tunesmith.models.low_rank import in_shape
from tunesmith.models.patches import Patch, RowDropPatch, parameter

_PEFT = {
    "rank": "r",
    "alpha": "alpha",
    "rank_dropout": "rank_dropout",
    "module_dropout": "module_dropout",
    "effective_conv": "use_effective_conv2d",
}


@register("methods")
class Loha(LayerMethod):
    """Update of rank up to rank^2 by an elementwise product of two low-rank matrices.

    y = x W^T + b + (alpha / rank) x ((A1 B1) * (A2 B2))^T, with B2 = 0 at the start.

    Source: Hyeon-Woo et al. 2021, arXiv:2108.06098, Proposition 1; for kernels, Proposition 3.
    """

    name: ClassVar[str] = "loha"
    paper: ClassVar[str] = "Hyeon-Woo et al. 2021, arXiv:2108.06098"
    peft_type: ClassVar[str | None] = "LOHA"
    leaves: ClassVar[tuple[str, ...]] = ("hada_w1_a",)
    lacks: ClassVar[tuple[type[LinearSeam], ...]] = (EmbeddingSeam,)

    rank: int = setting(8, "Inner width of each of the two products.", unit="count", ge=1, le=4096)
    alpha: float | None = setting(None, "Numerator of the scale alpha / rank; the rank when empty.", gt=0)
    rank_dropout: float = setting(0.0, "Dropout of the change's rows while training.", unit="fraction", ge=0, lt=1)
    module_dropout: float = setting(0.0, "How often a layer goes without its change.", unit="fraction", ge=0, lt=1)
    effective_conv: bool = setting(False, "Split kernels wider than one by their dimensions: fewer parameters.")

    def patch(self, seam: LinearSeam) -> Patch:
        """Build the factors of one map.

        Args:
            seam: the map.
        Returns:
            The patch.
        """
        scale = 1.0 if self.alpha is None else self.alpha / self.rank
        split = self.effective_conv and isinstance(seam, ConvSeam) and seam.stored[0, 0].numel() > 1
        return LohaPatch(seam, self.rank, scale, split, self.rank_dropout, self.module_dropout)

    def to_peft(self, delta: Delta) -> dict[str, Any]:
        """Word the settings as a PEFT LoHaConfig.

        Args:
            delta: attached by this method.
        Returns:
            The keys of adapter_config.json.
        """
        own = {theirs: getattr(self, ours) for ours, theirs in _PEFT.items()}
        own |= super().to_peft(delta) | {"alpha": self.alpha or self.rank}
        del own["fan_in_fan_out"]  # PEFT's LoHa has no Conv1D
        return own

    @classmethod
    def from_peft(cls, folder: PeftFolder) -> Self:
        """Read a PEFT LoHaConfig.

        Args:
            folder: as read.
        Returns:
            The method.
        Raises:
            CheckpointError: an option that is not supported.
        """
        folder.refuse(("rank_pattern", "alpha_pattern"))
        return cls(**folder.settings(_PEFT), **cls.peft_layers(folder))


class LohaPatch(RowDropPatch):
    """The factors of one linear map; the names are PEFT's.

    Args:
        seam: the map.
        rank: inner width of each product. [count]
        scale: of the change.
        split: whether kernels have a core of their own, hada_t1 and hada_t2.
        row_rate: dropout of rows. [fraction]
        whole_rate: dropout of the whole change. [fraction]
    """

    def __init__(
        self, seam: LinearSeam, rank: int, scale: float, split: bool, row_rate: float, whole_rate: float
    ) -> None:
        super().__init__(row_rate, whole_rate, rescale=True)
        self.scale, self.split = scale, split
        if split:
            kernel = (*seam.stored.shape[2:], 1)[:2]
            self.hada_t1, self.hada_t2 = parameter((rank, rank, *kernel), seam), parameter((rank, rank, *kernel), seam)
        first = (rank, seam.width_out) if split else (seam.width_out, rank)
        second = (rank, seam.stored.shape[1] if split else seam.width_in)
        self.hada_w1_a, self.hada_w1_b = parameter(first, seam), parameter(second, seam)
        self.hada_w2_a, self.hada_w2_b = parameter(first, seam), parameter(second, seam)
        for factor in self.parameters():
            nn.init.kaiming_uniform_(factor, a=math.sqrt(5))
        nn.init.zeros_(self.hada_w2_b)

    def forward(self, x: Tensor, seam: LinearSeam) -> Tensor:
        """Compute the adapted map with one product of full size."""
        if not seam.fused or not x.dtype == seam.stored.dtype == self.hada_w1_a.dtype:
            return super().forward(x, seam)
        rows = self.rows(seam)
        scale = self.scale if rows is None else self.scale * rows
        factors = (self.hada_w1_a, self.hada_w1_b, self.hada_w2_a, self.hada_w2_b)
        return hadamard_linear(x, seam.weight, seam.bias, scale, factors)

    def weight_change(self, seam: LinearSeam) -> Tensor:
        """Return what merging adds to W, (out, in)."""
        if not self.split:
            return (self.hada_w1_a @ self.hada_w1_b) * (self.hada_w2_a @ self.hada_w2_b) * self.scale
        first = _kernels(self.hada_t1, self.hada_w1_a, self.hada_w1_b)
        return (first * _kernels(self.hada_t2, self.hada_w2_a, self.hada_w2_b)).flatten(1) * self.scale


def _kernels(core: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """Multiply a core (rank, rank, height, width) by its two factors: (out, in, height, width)."""
    return torch.einsum("pqhw,po,qi->oihw", core, up, down)


def hadamard_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: float | Tensor,
    factors: tuple[Tensor, Tensor, Tensor, Tensor],
) -> Tensor:
    """y = x (W + scale * (A1 B1) * (A2 B2))^T + b, with only x kept for the backward pass.

    Args:
        x: (..., in).
        weight: W, (out, in), frozen.
        bias: b, (out,), or None.
        scale: of the change, a number or one per row, (out, 1).
        factors: A1 (out, rank), B1 (rank, in), A2, B2.
    Returns:
        (..., out).
    """
    y: Tensor = _HadamardLinear.apply(x, weight, bias, scale, *factors)  # type: ignore[no-untyped-call]
    return y


class _HadamardLinear(torch.autograd.Function):
    """The matrices of W's size are cheap to make again from the factors, so none is kept."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, scale: float | Tensor, *factors: Tensor
    ) -> Tensor:
        a1, b1, a2, b2 = factors
        ctx.save_for_backward(x, weight, *factors)
        ctx.scale = scale
        tuned = (a1 @ b1).mul_(a2 @ b2).mul_(scale).add_(weight)  # (out, in)
        return in_shape(nn.functional.linear(x.reshape(-1, x.shape[-1]), tuned, bias), x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a1, b1, a2, b2 = ctx.saved_tensors
        dy, flat = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])  # (N, out), (N, in)
        first, second = a1 @ b1, a2 @ b2  # (out, in)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = (dy @ (first * second).mul_(ctx.scale).add_(weight)).view(x.shape)
        change = (dy.t() @ flat).mul_(ctx.scale)  # (out, in)
        one, two = second.mul_(change), first.mul_(change)
        d_bias = dy.sum(0) if ctx.needs_input_grad[2] else None
        return dx, None, d_bias, None, one @ b1.t(), a1.t() @ one, two @ b2.t(), a2.t() @ two
