"""What a method puts at a linear map: the forms that methods share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tunesmith.core.errors import CompatibilityError
from tunesmith.models.linear import LinearSeam


class Patch(nn.Module):
    """What one delta does at one linear map. Its parameters train; their names are PEFT's."""

    follows: str | None = None  # path of the map whose weight is also this one's, and whose patch merges for both

    composes = True  # it may come after other patches at the same map: all it asks of the map is `base` and `apply`

    def forward(self, x: Tensor, seam: LinearSeam) -> Tensor:
        """Compute the adapted map.

        Args:
            x: input of the map.
            seam: the frozen map.
        Returns:
            Output of the map's shape and dtype.
        """
        raise NotImplementedError

    def weight_change(self, seam: LinearSeam) -> Tensor:
        """Return what merging adds to W.

        Args:
            seam: the frozen map.
        Returns:
            (out, in).
        Raises:
            CompatibilityError: no weight can hold what the patch does, as here.
        """
        raise CompatibilityError(
            f"what the delta does at '{seam.path}' is no change of its weight, so it cannot be merged. "
            "Keep it attached."
        )

    def write(self, seam: LinearSeam) -> None:
        """Change W for good; used by merge.

        Args:
            seam: the map.
        """
        seam.add_to_weight(self.weight_change(seam))

    def bias_change(self, seam: LinearSeam) -> Tensor | None:
        """Return what merging adds to b.

        Args:
            seam: the frozen map.
        Returns:
            (out,), or None for nothing.
        """
        return None

    def dropping(self, seam: LinearSeam, rate: float) -> bool:
        """Say whether this pass drops anything at random.

        Args:
            seam: the frozen map.
            rate: of the dropout. [fraction]
        Returns:
            True in training: of the delta, and of the model, which a user of the library may put in evaluation.
        """
        return rate > 0.0 and self.training and seam.module.training


class LowRankPatch(Patch):
    """W grows by scale * up down; a method says what the factors are.

    Args:
        dropout: on the input of `down`, while training. [fraction]
    """

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout

    def product(self, seam: LinearSeam) -> tuple[Tensor, Tensor, float]:
        """Return the factors.

        Args:
            seam: the frozen map.
        Returns:
            down and up in the shapes of `seam.low_rank_shapes`, and the scale.
        """
        raise NotImplementedError

    def factors(self, seam: LinearSeam) -> tuple[Tensor, Tensor, float] | None:
        """Return the factors when they are all this patch does now; None while it drops inputs.

        Args:
            seam: the frozen map.
        Returns:
            As `product`.
        """
        return None if self.dropping(seam, self.dropout) else self.product(seam)

    def forward(self, x: Tensor, seam: LinearSeam) -> Tensor:
        """Compute the adapted map."""
        down, up, scale = self.product(seam)
        if self.dropping(seam, self.dropout):
            y: Tensor = seam.base(x)
            return y + (scale * seam.low_rank(seam.drop(x, self.dropout), down, up)).to(y.dtype)
        return seam.plus_low_rank(x, down, up, scale)

    def weight_change(self, seam: LinearSeam) -> Tensor:
        """Return what merging adds to W, (out, in)."""
        down, up, scale = self.product(seam)
        return scale * seam.product(down, up)


class DensePatch(Patch):
    """W grows by a full matrix that a method makes from few parameters.

    Args:
        dropout: on the input of the change, while training. [fraction]
    """

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout

    def change(self, seam: LinearSeam) -> Tensor:
        """Return the change that this pass computes with.

        Args:
            seam: the frozen map.
        Returns:
            As `weight_change`, unless a method drops part of it while training.
        """
        return self.weight_change(seam)

    def forward(self, x: Tensor, seam: LinearSeam) -> Tensor:
        """Compute the adapted map with one product; with two where the sum would round the change away."""
        change = self.change(seam)
        dropping = self.dropping(seam, self.dropout)
        if seam.quantised or dropping or change.dtype != seam.stored.dtype:
            y: Tensor = seam.base(x)
            dropped = seam.drop(x, self.dropout) if dropping else x
            return y + seam.apply(dropped, change.to(y.dtype), None)
        return seam.apply(x, seam.weight + change, seam.bias)


class RowDropPatch(DensePatch):
    """A full change of which rows, or the whole, are left out at random while training.

    Args:
        row_rate: probability that a row of the change is left out. [fraction]
        whole_rate: probability that all of the change is left out of a step. [fraction]
        rescale: divide the rows that stay by their share.
    """

    def __init__(self, row_rate: float = 0.0, whole_rate: float = 0.0, rescale: bool = False) -> None:
        super().__init__()
        self.row_rate, self.whole_rate, self.rescale = row_rate, whole_rate, rescale

    def rows(self, seam: LinearSeam) -> Tensor | None:
        """Draw what each row of the change counts in this pass.

        Args:
            seam: the frozen map.
        Returns:
            (out, 1), or None when nothing is dropped.
        """
        if not self.dropping(seam, max(self.row_rate, self.whole_rate)):
            return None
        source = seam.routing.source()
        device = seam.stored.device
        rows = source.keep(torch.Size((seam.width_out, 1)), self.row_rate, device).to(seam.dtype)
        if self.rescale and rows.any():
            rows = rows / rows.mean()
        return rows * source.keep(torch.Size((1, 1)), self.whole_rate, device)

    def change(self, seam: LinearSeam) -> Tensor:
        """Return the change without the dropped rows; only the parameters are kept for the backward pass."""
        change: Tensor = checkpoint(self.weight_change, seam, use_reentrant=False, preserve_rng_state=False)
        rows = self.rows(seam)
        return change if rows is None else change * rows


def parameter(shape: tuple[int, ...], seam: LinearSeam) -> nn.Parameter:
    """Make an unset parameter in the dtype that patches of a map compute in.

    Args:
        shape: of it.
        seam: the map.
    Returns:
        A parameter on the map's device; its values are arbitrary.
    """
    return nn.Parameter(torch.empty(shape, dtype=seam.dtype, device=seam.stored.device))


def refuse_groups(seam: LinearSeam, what: str) -> None:
    """Refuse a convolution in groups for what changes maps by a low-rank product.

    Args:
        seam: any map.
        what: it is for, to begin the error with.
    Raises:
        CompatibilityError: the map is one.
    """
    groups = getattr(seam.module, "groups", 1)
    if groups > 1:
        raise CompatibilityError(
            f"{what}: '{seam.path}' is a convolution in {groups} groups, where a low-rank product has no single form. "
            "Leave it out of `layers`."
        )


class Weight(nn.Module):
    """A parameter called `weight`, where PEFT's names want one.

    Args:
        shape: of it.
        seam: the map it belongs to.
    """

    weight: Any

    def __init__(self, shape: tuple[int, ...], seam: LinearSeam) -> None:
        super().__init__()
        self.weight = parameter(shape, seam)
