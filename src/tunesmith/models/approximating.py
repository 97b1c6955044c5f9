"""Low-rank approximation of weight changes by singular values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tunesmith.models.patches import refuse_groups
from tunesmith.models.seams import Seams


@dataclass
class Approximation:
    """Weight changes of several maps as low-rank products of one rank.

    Args:
        rank: of all products; those that need less are filled with zeros.
        needed: rank that each map needs.
        errors: per map, the norm of the error over the norm of the change.
        factors: per map, `down` and `up` in the shapes of `low_rank_shapes`.
        shifts: change of the bias, for maps that have one.
    """

    rank: int = 0
    needed: dict[str, int] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    factors: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    shifts: dict[str, Tensor] = field(default_factory=dict)


@torch.no_grad()
def approximate(seams: Seams, patches: Mapping[str, nn.Module], tolerance: float, rank: int | None) -> Approximation:
    """Approximate what patches add to W by low-rank products, as well as can be.

    Args:
        seams: of the model.
        patches: per linear map's path.
        tolerance: largest relative error of a map when no rank is given.
        rank: of all products; the smallest that stays within the tolerance when None. [count]
    Returns:
        The products, on the CPU.
    Raises:
        CompatibilityError: a map is a convolution in groups.
    Source: Eckart and Young 1936.
    """
    found = Approximation()
    for path, patch in patches.items():
        seam = seams.linear[path]
        refuse_groups(seam, "LoRA")
        change = patch.weight_change(seam).double().cpu()  # type: ignore[operator]
        u, values, v = torch.linalg.svd(change, full_matrices=False)
        tails = torch.cat([values.square().flip(0).cumsum(0).flip(0), values.new_zeros(1)]).sqrt()  # left after a rank
        relative = tails / tails[0] if tails[0] > 0 else tails
        enough = int((relative > tolerance).sum()) if rank is None else min(rank, len(values))
        width = found.needed[path] = max(1, enough)
        found.errors[path] = float(relative[width])
        found.factors[path] = (v[:width].to(seam.dtype), (u * values)[:, :width].to(seam.dtype))
        shift = patch.bias_change(seam)  # type: ignore[operator]
        if shift is not None:
            found.shifts[path] = shift.cpu()
    found.rank = max(found.needed.values(), default=0)
    for path, (down, up) in found.factors.items():
        wide = down.new_zeros(found.rank, down.shape[1]), up.new_zeros(up.shape[0], found.rank)
        wide[0][: len(down)], wide[1][:, : len(down)] = down, up
        shapes = seams.linear[path].low_rank_shapes(found.rank)
        found.factors[path] = (wide[0].reshape(shapes[0]), wide[1].reshape(shapes[1]))
    return found


def small_svd(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Decompose a product of two matrices, without multiplying it out where they are narrow.

    Args:
        left: (out, inner).
        right: (inner, in).
    Returns:
        U, the singular values in falling order, and V^T.
    """
    if left.shape[1] >= min(left.shape[0], right.shape[1]):
        return torch.linalg.svd(left @ right, full_matrices=False)
    q_left, r_left = torch.linalg.qr(left)
    q_right, r_right = torch.linalg.qr(right.t())
    u, values, v = torch.linalg.svd(r_left @ r_right.t(), full_matrices=False)
    return q_left @ u, values, v @ q_right.t()
