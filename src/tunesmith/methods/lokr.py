"""LoKr: the Kronecker product of two small matrices beside each frozen linear map."""

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

_MERGED = 2**20  # numbers in a W: up to here one product with the sum of W and the change is the fastest
_PEFT = {
    "rank": "r",
    "alpha": "alpha",
    "decompose_both": "decompose_both",
    "rank_dropout": "rank_dropout",
    "rank_dropout_scale": "rank_dropout_scale",
    "module_dropout": "module_dropout",
    "effective_conv": "use_effective_conv2d",
}


@register("methods")
class Lokr(LayerMethod):
    """Update by a Kronecker product of two small matrices, each whole or of low rank.

    y = x W^T + b + (alpha / rank) x (W1 kron W2)^T, with W1 = 0 at the start.

    Source: Yeh et al. 2023, arXiv:2309.14859, section 3.3.
    """

    name: ClassVar[str] = "lokr"
    paper: ClassVar[str] = "Yeh et al. 2023, arXiv:2309.14859"
    peft_type: ClassVar[str | None] = "LOKR"
    leaves: ClassVar[tuple[str, ...]] = ("lokr_w1", "lokr_w1_a")
    lacks: ClassVar[tuple[type[LinearSeam], ...]] = (EmbeddingSeam,)

    rank: int = setting(8, "Inner width of a matrix that is split in two; a small one stays whole.", ge=1, le=4096)
    alpha: float | None = setting(None, "Numerator of the scale alpha / rank; empty means the rank.", gt=0)
    decompose_both: bool = setting(False, "Split W1 too where that saves parameters.")
    decompose_factor: int | None = setting(
        None, "Largest width of W1; as near to the square root of the layer's width as it divides when empty.", ge=1
    )
    effective_conv: bool = setting(False, "Give kernels wider than one a core of their own: fewer parameters.")
    rank_dropout: float = setting(0.0, "Share of the change's rows dropped in training.", unit="fraction", ge=0, lt=1)
    rank_dropout_scale: bool = setting(False, "Divide the rows that stay by their share.")
    module_dropout: float = setting(0.0, "How often a layer does without its change.", unit="fraction", ge=0, lt=1)

    def patch(self, seam: LinearSeam) -> Patch:
        """Build the two matrices of one map.

        Args:
            seam: the map.
        Returns:
            The patch.
        """
        return LokrPatch(seam, self)

    def to_peft(self, delta: Delta) -> dict[str, Any]:
        """Word the settings as a PEFT LoKrConfig.

        Args:
            delta: attached by this method.
        Returns:
            The keys of adapter_config.json.
        """
        own = {theirs: getattr(self, ours) for ours, theirs in _PEFT.items()}
        own |= {"alpha": self.alpha or self.rank, "decompose_factor": self.decompose_factor or -1}
        shared = super().to_peft(delta)
        del shared["fan_in_fan_out"]  # PEFT's LoKr has no Conv1D
        return shared | own

    @classmethod
    def from_peft(cls, folder: PeftFolder) -> Self:
        """Read a PEFT LoKrConfig.

        Args:
            folder: as read.
        Returns:
            The method.
        Raises:
            CheckpointError: an option that is not supported.
        """
        folder.refuse(("rank_pattern", "alpha_pattern"))
        factor = int(folder.config.get("decompose_factor", -1))
        return cls(
            decompose_factor=None if factor == -1 else max(factor, 1),
            **folder.settings(_PEFT),
            **cls.peft_layers(folder),
        )


class LokrPatch(RowDropPatch):
    """The two matrices of one linear map; the names are PEFT's.

    Args:
        seam: the map.
        method: its settings.
    """

    def __init__(self, seam: LinearSeam, method: Lokr) -> None:
        super().__init__(method.rank_dropout, method.module_dropout, method.rank_dropout_scale)
        rank = method.rank
        self.scale = 1.0 if method.alpha is None else method.alpha / rank
        self.convolves = isinstance(seam, ConvSeam)
        kernel = tuple(seam.stored.shape[2:]) if self.convolves else ()
        out_1, out_2 = divide(seam.width_out, method.decompose_factor)
        in_1, in_2 = divide(seam.width_in // math.prod(kernel), method.decompose_factor)
        if method.decompose_both and rank < max(out_1, in_1) / 2:
            self.lokr_w1_a, self.lokr_w1_b = parameter((out_1, rank), seam), parameter((rank, in_1), seam)
        else:
            self.lokr_w1 = parameter((out_1, in_1), seam)
        if rank >= max(out_2, in_2) / 2:
            self.lokr_w2 = parameter((out_2, in_2, *kernel), seam)
        elif method.effective_conv and math.prod(kernel) > 1:
            self.lokr_t2 = parameter((rank, rank, *(*kernel, 1)[:2]), seam)
            self.lokr_w2_a, self.lokr_w2_b = parameter((rank, out_2), seam), parameter((rank, in_2), seam)
        else:
            self.lokr_w2_a = parameter((out_2, rank), seam)
            self.lokr_w2_b = parameter((rank, in_2 * math.prod(kernel)), seam)
        for name, factor in self.named_parameters():
            if name in ("lokr_w1", "lokr_w1_a"):
                nn.init.zeros_(factor)
            else:
                nn.init.kaiming_uniform_(factor, a=math.sqrt(5))

    def matrices(self) -> tuple[Tensor, Tensor]:
        """Return W1, scaled, and W2."""
        own = self._parameters
        first: Tensor = self.lokr_w1 if "lokr_w1" in own else self.lokr_w1_a @ self.lokr_w1_b
        second: Tensor
        if "lokr_w2" in own:
            second = self.lokr_w2
        elif "lokr_t2" in own:
            second = torch.einsum("pqhw,po,qi->oihw", self.lokr_t2, self.lokr_w2_a, self.lokr_w2_b)
        else:
            second = self.lokr_w2_a @ self.lokr_w2_b
        return first * self.scale, second

    def forward(self, x: Tensor, seam: LinearSeam) -> Tensor:
        """Compute the adapted map; the Kronecker product itself is formed for small maps and for convolutions."""
        if self.convolves:
            return super().forward(x, seam)
        first, second = self.matrices()
        rows = self.rows(seam)
        small = seam.width_in * seam.width_out <= _MERGED
        if rows is None and small and seam.fused and x.dtype == seam.stored.dtype == first.dtype:
            return plus_kronecker(x, seam.weight, seam.bias, first, second)
        y: Tensor = seam.base(x)
        more = kronecker_linear(x.to(first.dtype), first, second)
        return y + (more if rows is None else more * rows.flatten()).to(y.dtype)

    def weight_change(self, seam: LinearSeam) -> Tensor:
        """Return what merging adds to W, (out, in)."""
        first, second = self.matrices()
        if second.dim() != 3:  # a whole W2 of a Conv1d is lined up from its last dimension: so it is in PEFT's files
            second = second.flatten(1).contiguous()
        return torch.kron(first, second).reshape(seam.width_out, seam.width_in)


def divide(width: int, most: int | None) -> tuple[int, int]:
    """Write a width as a product of two, the first one for W1.

    Args:
        width: of a layer.
        most: the first one itself if it divides the width, else the bound of it; None for no bound.
    Returns:
        The two; as near to each other as can be.
    Example:
        >>> divide(384, None), divide(384, 4), divide(384, 10)
        ((16, 24), (4, 96), (8, 48))
    """
    if most is not None and width % most == 0:
        return most, width // most
    root = math.isqrt(width)
    first = max(number for number in range(1, min(root, most or root) + 1) if width % number == 0)
    return first, width // first


def kronecker_linear(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """y = x (W1 kron W2)^T by two small products, with only x kept for the backward pass.

    Args:
        x: (..., in_1 * in_2).
        first: W1, (out_1, in_1).
        second: W2, (out_2, in_2).
    Returns:
        (..., out_1 * out_2).
    """
    y: Tensor = _KroneckerLinear.apply(x, first, second)  # type: ignore[no-untyped-call]
    return y


class _KroneckerLinear(torch.autograd.Function):
    """Per token, W1 X W2^T with X the input as a matrix (in_1, in_2)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, first: Tensor, second: Tensor) -> Tensor:
        ctx.save_for_backward(x, first, second)
        half = x.reshape(-1, second.shape[1]) @ second.t()  # (N * in_1, out_2)
        y = first @ half.view(-1, first.shape[1], second.shape[0])  # (N, out_1, out_2)
        return in_shape(y.flatten(1), x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, first, second = ctx.saved_tensors
        dy = grad.reshape(-1, first.shape[0], second.shape[0])  # (N, out_1, out_2)
        flat = x.reshape(-1, second.shape[1])  # (N * in_1, in_2)
        back = (first.t() @ dy).view(-1, second.shape[0])  # (N * in_1, out_2)
        half = (flat @ second.t()).view(-1, first.shape[1], second.shape[0])  # (N, in_1, out_2)
        d_first = torch.bmm(dy, half.transpose(1, 2)).sum(0)
        dx = (back @ second).view(x.shape) if ctx.needs_input_grad[0] else None
        return dx, d_first, back.t() @ flat


def plus_kronecker(x: Tensor, weight: Tensor, bias: Tensor | None, first: Tensor, second: Tensor) -> Tensor:
    """y = x (W + W1 kron W2)^T + b, with only x kept for the backward pass.

    Args:
        x: (..., in_1 * in_2).
        weight: W, frozen, (out_1 * out_2, in_1 * in_2).
        bias: b, (out_1 * out_2,), or None.
        first: W1, (out_1, in_1).
        second: W2, (out_2, in_2).
    Returns:
        (..., out_1 * out_2).
    """
    y: Tensor = _PlusKronecker.apply(x, weight, bias, first, second)  # type: ignore[no-untyped-call]
    return y


class _PlusKronecker(torch.autograd.Function):
    """One product with the sum, which each direction forms anew: it is no larger than one layer at any time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, first: Tensor, second: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, first, second)
        tuned = torch.kron(first, second).add_(weight)
        return in_shape(nn.functional.linear(x.reshape(-1, x.shape[-1]), tuned, bias), x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, first, second = ctx.saved_tensors
        dy = grad.reshape(-1, grad.shape[-1])  # (N, out)
        d_weight = dy.t() @ x.reshape(-1, x.shape[-1])  # (out, in)
        blocks = d_weight.view(len(first), len(second), first.shape[1], second.shape[1]).transpose(1, 2)
        pairs = blocks.reshape(first.numel(), second.numel())
        dx = (dy @ torch.kron(first, second).add_(weight)).view(x.shape) if ctx.needs_input_grad[0] else None
        d_bias = dy.sum(0) if ctx.needs_input_grad[2] else None
        d_first, d_second = (pairs @ second.reshape(-1)).view_as(first), (first.reshape(-1) @ pairs).view_as(second)
        return dx, None, d_bias, d_first, d_second
