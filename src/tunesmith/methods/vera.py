"""VeRA: one pair of random frozen matrices for all layers, and two trained vectors per layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tunesmith.core.errors import CheckpointError
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.methods.base import LayerMethod, PeftFolder
from tunesmith.models.delta import Delta
from tunesmith.models.linear import ConvSeam, EmbeddingSeam, LinearSeam
from tunesmith.models.low_rank import in_shape
from tunesmith.models.patches import LowRankPatch, parameter
from tunesmith.models.seams import Seams

_SHARED = ("base_model.vera_A", "base_model.vera_B")  # PEFT's names, above the model's own
_PEFT = {
    "rank": "r",
    "seed": "projection_prng_key",
    "save_projection": "save_projection",
    "d_initial": "d_initial",
    "dropout": "vera_dropout",
}


@register("methods")
class Vera(LayerMethod):
    """Random matrices shared by all layers, weighted by trained vectors.

    y = x W^T + b + (((x A^T) * d) B^T) * v, with the vector v = 0 at the start; A and B never train.

    Source: Kopiczko et al. 2023, arXiv:2310.11454, eq. 2.
    """

    name: ClassVar[str] = "vera"
    paper: ClassVar[str] = "Kopiczko et al. 2023, arXiv:2310.11454"
    peft_type: ClassVar[str | None] = "VERA"
    leaves: ClassVar[tuple[str, ...]] = ("vera_lambda_d",)
    lacks: ClassVar[tuple[type[LinearSeam], ...]] = (ConvSeam, EmbeddingSeam)

    rank: int = setting(256, "Inner width of the shared matrices.", unit="count", ge=1, le=8192)
    seed: int = setting(0, "Seed of the shared matrices.", ge=0)
    d_initial: float = setting(0.1, "First value of the inner vector; the paper advises at most 0.1.")
    dropout: float = setting(0.0, "Dropout on the input of A.", unit="fraction", ge=0, lt=1)
    save_projection: bool = setting(True, "Save the shared matrices too, instead of drawing them anew from the seed.")

    def builders(self, seams: Seams, paths: Sequence[str]) -> dict[str, Callable[[LinearSeam], nn.Module]]:
        """Draw the shared matrices, as large as the largest map needs, for patches that take their part.

        Args:
            seams: of the model.
            paths: of the maps to adapt.
        Returns:
            Path to a function that builds the patch of its map.
        Raises:
            TargetError: a map is a convolution or a table of embeddings.
        """
        super().builders(seams, paths)
        if not paths:
            return {}
        projection = Projection(self.rank, [seams.linear[path] for path in paths], self.seed)
        return dict.fromkeys(paths, partial(VeraPatch, projection, self.d_initial, self.dropout))

    def tensors(self, delta: Delta) -> dict[str, Tensor]:
        """Return the vectors and, if wanted, the shared matrices.

        Args:
            delta: attached by this method.
        Returns:
            PEFT's names to tensors, on the CPU.
        """
        own = super().tensors(delta)
        if self.save_projection and delta.patches:
            shared = _projection(delta)
            own |= dict(zip(_SHARED, (shared.down.cpu(), shared.up.cpu()), strict=True))
        return own

    def load(self, delta: Delta, tensors: Mapping[str, Tensor], where: str) -> None:
        """Take over the vectors, and the shared matrices where they were saved.

        Args:
            delta: attached a moment ago.
            tensors: of the file, ours or PEFT's.
            where: the file, for errors.
        Raises:
            CheckpointError: they do not fit, or the shared ones are missing.
        """
        super().load(delta, {name: tensor for name, tensor in tensors.items() if name not in _SHARED}, where)
        shared = [tensors[name] for name in _SHARED if name in tensors]
        if len(shared) == 2:
            _projection(delta).take(shared[0], shared[1], where)
        elif delta.patches and (self.save_projection or shared):
            raise CheckpointError(
                f"{where}: the config says that {' and '.join(_SHARED)} are saved, but they are missing. Save the "
                "delta again; or, if its seed is right, set save_projection to false to draw them anew."
            )

    def to_peft(self, delta: Delta) -> dict[str, Any]:
        """Word the settings as a PEFT VeraConfig.

        Args:
            delta: attached by this method.
        Returns:
            The keys of adapter_config.json.
        """
        own = {theirs: getattr(self, ours) for ours, theirs in _PEFT.items()}
        return {**super().to_peft(delta), **own, "bias": "none"}

    @classmethod
    def from_peft(cls, folder: PeftFolder) -> Self:
        """Read a PEFT VeraConfig.

        Args:
            folder: as read.
        Returns:
            The method.
        """
        return cls(**folder.settings(_PEFT), **cls.peft_layers(folder))


class Projection(nn.Module):
    """The two random matrices that all layers of a delta share.

    Args:
        rank: inner width. [count]
        maps: that use them.
        seed: of the draw; the same matrices as PEFT's for the same seed.
    """

    down: Tensor
    up: Tensor

    def __init__(self, rank: int, maps: Sequence[LinearSeam], seed: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        for name, shape in (
            ("down", (rank, max(seam.width_in for seam in maps))),
            ("up", (max(seam.width_out for seam in maps), rank)),
        ):
            bound = math.sqrt(6 / shape[1])  # He et al.'s, from the number of inputs
            matrix = torch.empty(shape, dtype=torch.float32).uniform_(-bound, bound, generator=draw)
            self.register_buffer(name, matrix.to(device=maps[0].stored.device, dtype=maps[0].dtype))

    def take(self, down: Tensor, up: Tensor, where: str) -> None:
        """Put saved matrices in place; they may be larger than needed.

        Args:
            down: A, (rank, at least in).
            up: B, (at least out, rank).
            where: their file, for errors.
        Raises:
            CheckpointError: they are too small, or of another rank.
        """
        for name, saved, fixed in (("down", down, 0), ("up", up, 1)):
            own = self.get_buffer(name)
            if saved.shape[fixed] != own.shape[fixed] or saved.shape[1 - fixed] < own.shape[1 - fixed]:
                raise CheckpointError(
                    f"{where}: the shared '{name}' matrix has shape {tuple(saved.shape)}, the model needs "
                    f"{tuple(own.shape)}. It was made for another base model or other settings."
                )
            setattr(self, name, own.new_empty(saved.shape).copy_(saved))  # aligned afresh: the same sums, bit for bit


class VeraPatch(LowRankPatch):
    """The two vectors of one linear map; the names are PEFT's."""

    def __init__(self, projection: Projection, d_initial: float, dropout: float, seam: LinearSeam) -> None:
        super().__init__(dropout)
        self.projection = projection
        self.vera_lambda_b = parameter((seam.width_out,), seam)
        self.vera_lambda_d = parameter((projection.down.shape[0],), seam)
        nn.init.zeros_(self.vera_lambda_b)
        nn.init.constant_(self.vera_lambda_d, d_initial)

    def shared(self, seam: LinearSeam) -> tuple[Tensor, Tensor]:
        """Return this map's part of A, (rank, in), and of B, (out, rank)."""
        down, up = self.projection.down[:, : seam.width_in], self.projection.up[: seam.width_out]
        return down.to(self.vera_lambda_d), up.to(self.vera_lambda_b)

    def product(self, seam: LinearSeam) -> tuple[Tensor, Tensor, float]:
        """Return this map's part of A and B, weighted."""
        down, up = self.shared(seam)
        return self.vera_lambda_d[:, None] * down, self.vera_lambda_b[:, None] * up, 1.0

    def forward(self, x: Tensor, seam: LinearSeam) -> Tensor:
        """Compute the adapted map."""
        plain = seam.fused and x.dtype == seam.stored.dtype == self.vera_lambda_d.dtype
        if not plain or self.dropping(seam, self.dropout):
            return super().forward(x, seam)
        vectors = (self.vera_lambda_d, self.vera_lambda_b)
        return weighted_low_rank(x, seam.weight, seam.bias, self.shared(seam), vectors)


def weighted_low_rank(
    x: Tensor, weight: Tensor, bias: Tensor | None, shared: tuple[Tensor, Tensor], vectors: tuple[Tensor, Tensor]
) -> Tensor:
    """y = x W^T + b + (((x A^T) * d) B^T) * v, with gradients for the vectors alone.

    Args:
        x: (..., in).
        weight: W, (out, in), frozen.
        bias: b, (out,), or None.
        shared: A, (rank, in), and B, (out, rank), frozen.
        vectors: d, (rank,), and v, (out,).
    Returns:
        (..., out).
    """
    (rank, width_in), width_out, tokens = shared[0].shape, len(weight), x[..., 0].numel()
    # Multiplications beyond those that both ways do; a wide A and B are cheaper multiplied out, once for all tokens.
    full = tokens * width_in * width_out + 3 * rank * width_in * width_out
    narrow = tokens * rank * (2 * width_in + 3 * width_out)
    y: Tensor = _Weighted.apply(x, weight, bias, full < narrow, *shared, *vectors)  # type: ignore[no-untyped-call]
    return y


class _Weighted(torch.autograd.Function):
    """The product with A and B either multiplied out (`full`), or one after the other."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, full: bool, *factors: Tensor) -> Tensor:
        down, up, d, v = factors
        flat = x.reshape(-1, x.shape[-1])  # (N, in)
        ctx.full = full
        if full:
            ctx.save_for_backward(x, weight, *factors)
            tuned = torch.addcmul(weight, v[:, None], up @ (d[:, None] * down))  # (out, in)
            return in_shape(nn.functional.linear(flat, tuned, bias), x)
        low = down @ flat.t()  # (rank, N)
        ctx.save_for_backward(x, weight, *factors, low)
        y = nn.functional.linear(flat, weight, bias)
        y.addmm_((d[:, None] * low).t(), (v[:, None] * up).t())
        return in_shape(y, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, down, up, d, v, *low = ctx.saved_tensors
        dy, flat = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])  # (N, out), (N, in)
        back = (v[:, None] * up).t().contiguous()  # (rank, out)
        if ctx.full:
            mixed = up @ (d[:, None] * down)  # (out, in)
            change = dy.t() @ flat  # (out, in)
            d_d, d_v = (back @ change).mul_(down).sum(1), change.mul_(mixed).sum(1)
            dx = dy @ torch.addcmul(weight, v[:, None], mixed) if ctx.needs_input_grad[0] else None
        else:
            narrow = back @ dy.t()  # (rank, N)
            d_d = (narrow * low[0]).sum(1)
            d_v = ((d[:, None] * low[0]) @ dy).mul_(up.t()).sum(0)
            dx = (dy @ weight).addmm_(narrow.t(), d[:, None] * down) if ctx.needs_input_grad[0] else None
        d_bias = dy.sum(0) if ctx.needs_input_grad[2] else None
        return None if dx is None else dx.view(x.shape), None, d_bias, None, None, None, d_d, d_v


def _projection(delta: Delta) -> Projection:
    shared: Projection = next(iter(delta.patches.values())).projection  # type: ignore[assignment]
    return shared
