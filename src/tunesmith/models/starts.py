"""Starting values of low-rank factors: from chance, from the weight, from what the layer sees."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.core.errors import CompatibilityError
from tunesmith.models.linear import EmbeddingSeam, LinearSeam
from tunesmith.models.lora_patches import LoraPatch
from tunesmith.models.quantized import FULL

_EXACT = 1024  # up to this width a full decomposition takes well under a second
_SPARE, _ROUNDS = 16, 8


@torch.no_grad()
def leading_factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Split the best approximation of a rank evenly into two factors.

    W ~ U S V^T: down = sqrt(S) V^T, up = U sqrt(S). Wide matrices are decomposed by a randomised range finder.

    Args:
        matrix: (out, in).
        rank: wanted; at most min(out, in) components exist. [count]
    Returns:
        down, (k, in), and up, (out, k), with k = min(rank, out, in).
    Source: Meng et al. 2024, arXiv:2404.02948, eq. 2-3; Halko et al. 2009, arXiv:0909.4061, algorithm 4.4.
    """
    narrow = min(matrix.shape)
    if narrow <= _EXACT or rank + _SPARE >= narrow:
        left, size, right = torch.linalg.svd(matrix, full_matrices=False)
    else:
        left, size, right = torch.svd_lowrank(matrix, q=rank + _SPARE, niter=_ROUNDS)
        right = right.t()
    root = size[:rank].sqrt()
    return root[:, None] * right[:rank], left[:, :rank] * root


@torch.no_grad()
def orthogonal_factors(rank: int, width_in: int, width_out: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Draw two factors, neither of them zero, whose product is zero.

    The rows of one random rotation are shared out between them, so up down = X Q_even Q_odd^T Y = 0.

    Args:
        rank: inner width. [count]
        width_in: columns of the product.
        width_out: rows of the product.
        like: a tensor of the wanted dtype and device.
    Returns:
        down, (rank, in), and up, (out, rank).
    """
    rotation = torch.linalg.qr(like.new_empty(rank, rank).normal_())[0]
    odd, even = rotation[0::2], rotation[1::2]
    down = odd.t() @ like.new_empty(len(odd), width_in).normal_()
    up = like.new_empty(width_out, len(even)).normal_() @ even
    return down / 10, up / 10


@torch.no_grad()
def leading_inputs(maps: Mapping[str, nn.Module], run: Callable[[], None], rank: int) -> dict[str, Tensor]:
    """Find the directions in which the inputs of linear maps are largest.

    The leading eigenvectors of sum x x^T, gathered over all batches: the right singular vectors of the inputs.

    Args:
        maps: the modules themselves, by path; patches are not called where maps run together.
        run: sends a few batches through the model.
        rank: directions wanted. [count]
    Returns:
        Path to directions, largest first, (min(rank, in), in); maps that were never called are left out.
    Source: Paischer et al. 2024, arXiv:2410.07170, section 3.2. Differs: one decomposition of the summed products
        in place of an incremental one per batch.
    """
    sums: dict[str, Tensor] = {}

    def watch(path: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def note(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            x = inputs[0].detach().flatten(0, -2)  # (N, in)
            x = x if x.dtype == torch.float64 else x.float()
            sums[path] = x.t() @ x if path not in sums else sums[path].addmm_(x.t(), x)

        return note

    hooks = [module.register_forward_pre_hook(watch(path)) for path, module in maps.items()]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return {path: torch.linalg.eigh(total)[1].flip(1)[:, :rank].t() for path, total in sums.items()}


def _start_gaussian(patch: LoraPatch, seam: LinearSeam) -> None:
    if not isinstance(seam, EmbeddingSeam):  # a table's A is zero and its B normal already
        nn.init.normal_(patch.pair[0], std=1 / len(patch.pair[0]))


def _start_orthogonal(patch: LoraPatch, seam: LinearSeam) -> None:
    down, up = patch.pair
    patch.set(*orthogonal_factors(len(down), down[0].numel(), len(up), like=up.detach()))


def _start_from(patch: LoraPatch, matrix: Tensor) -> None:
    """Let s B A be the best approximation of a matrix."""
    down, up = leading_factors(matrix, len(patch.pair[0]))
    patch.set(down / math.sqrt(patch.scale), up / math.sqrt(patch.scale))


def start_leading(patch: LoraPatch, seam: LinearSeam) -> None:
    """Train the leading part of W (PiSSA); the same part is taken off, so that W itself stays as it is.

    Args:
        patch: fresh.
        seam: its map.
    """
    _start_from(patch, seam.weight.detach().to(patch.pair[0].dtype))
    patch.freeze(*patch.pair)


def _start_loftq(patch: LoraPatch, seam: LinearSeam) -> None:
    """Give back what quantising took, as far as the rank allows (Li et al. 2023, arXiv:2310.08659, eq. 6)."""
    original = seam.module.__dict__.get(FULL)
    if not seam.quantised or original is None:
        why = "its weight is not quantised" if not seam.quantised else "its full-precision weight is not at hand"
        raise CompatibilityError(
            f"method lora: init 'loftq' starts from what quantising lost, but of '{seam.path}' {why}. "
            "Quantise the base with model.quantization, keeping the original weights, or choose another init."
        )
    dtype = patch.pair[0].dtype
    _start_from(patch, original().to(dtype) - seam.weight.to(dtype))


STARTS: dict[str, Callable[[LoraPatch, LinearSeam], None]] = {
    "gaussian": _start_gaussian,
    "orthogonal": _start_orthogonal,
    "pissa": start_leading,
    "loftq": _start_loftq,
}
