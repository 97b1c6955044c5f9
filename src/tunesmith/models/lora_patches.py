"""What LoRA puts at a linear map: two factors, with a bias of the second, or with the length of each row."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.models.linear import EmbeddingSeam, LinearSeam
from tunesmith.models.low_rank import one_low_rank
from tunesmith.models.patches import LowRankPatch, Weight, parameter

_SMALL = 2**18  # numbers in a W: up to here W + s B A is formed at once, the faster way
_NAMES, _TABLE_NAMES = ("lora_A.weight", "lora_B.weight"), ("lora_embedding_A", "lora_embedding_B")


class LoraPatch(LowRankPatch):
    """A and B of one linear map; the names are PEFT's.

    Args:
        seam: the map.
        rank: inner width. [count]
        scale: of the product.
        dropout: on the input of A, while training. [fraction]
    """

    start_down: Tensor | None  # of PiSSA: the pair that the update started as, taken off again by every pass
    start_up: Tensor | None

    def __init__(self, seam: LinearSeam, rank: int, scale: float, dropout: float) -> None:
        embedding = isinstance(seam, EmbeddingSeam)
        super().__init__(0.0 if embedding else dropout)
        self.scale = scale
        self.names = _TABLE_NAMES if embedding else _NAMES
        down, up = seam.low_rank_shapes(rank)
        if embedding:
            self.lora_embedding_A, self.lora_embedding_B = parameter(down, seam), parameter(up, seam)
        else:
            self.lora_A, self.lora_B = Weight(down, seam), Weight(up, seam)
        self.register_buffer("start_down", None, persistent=False)
        self.register_buffer("start_up", None, persistent=False)
        first, second = self.pair
        if embedding:  # gradients reach only the rows of A that a batch holds; B starts alive for all of them
            nn.init.zeros_(first)
            nn.init.normal_(second)
        else:
            nn.init.kaiming_uniform_(first, a=math.sqrt(5))
            nn.init.zeros_(second)

    @property
    def pair(self) -> tuple[nn.Parameter, nn.Parameter]:
        """A and B."""
        if self.names is _TABLE_NAMES:
            return self.lora_embedding_A, self.lora_embedding_B
        return self.lora_A.weight, self.lora_B.weight

    @property
    def frozen(self) -> tuple[Tensor, Tensor] | None:
        """The pair that the update started as, or None."""
        return None if self.start_down is None or self.start_up is None else (self.start_down, self.start_up)

    def freeze(self, down: Tensor, up: Tensor) -> None:
        """Take a product off the map for good, so that the base weights need not change.

        Args:
            down: of the shape of A.
            up: of the shape of B.
        """
        first, second = self.pair
        self.start_down, self.start_up = down.detach().to(first, copy=True), up.detach().to(second, copy=True)

    @torch.no_grad()
    def set(self, down: Tensor, up: Tensor) -> None:
        """Start from two factors.

        Args:
            down: (k, in), k at most the rank; rows beyond stay as they are.
            up: (out, k); columns beyond become zero.
        """
        first, second = self.pair
        count = len(down)
        first[:count].copy_(down.reshape(count, *first.shape[1:]))
        second.zero_()
        second[:, :count].copy_(up.reshape(len(second), count, *second.shape[2:]))

    def product(self, seam: LinearSeam) -> tuple[Tensor, Tensor, float]:
        """Return A, B and the scale; [A; A0] and [B, -B0] where a starting pair is taken off."""
        down, up = self.pair
        if self.start_down is None or self.start_up is None:
            return down, up, self.scale
        return torch.cat([down, self.start_down]), torch.cat([up, -self.start_up], dim=1), self.scale


class BiasedLoraPatch(LoraPatch):
    """A, B and a bias of B: y grows by s (x A^T B^T + b_B)."""

    def __init__(self, seam: LinearSeam, rank: int, scale: float, dropout: float) -> None:
        super().__init__(seam, rank, scale, dropout)
        self.lora_B.bias = nn.Parameter(torch.zeros(seam.width_out).to(self.lora_B.weight))

    def factors(self, seam: LinearSeam) -> None:
        """Return None: the factors are never all this patch does."""
        return None

    def forward(self, x: Tensor, seam: LinearSeam) -> Tensor:
        """Compute the adapted map."""
        y = super().forward(x, seam)
        return y + _along(self.bias_change(seam), seam).to(y.dtype)

    def bias_change(self, seam: LinearSeam) -> Tensor:
        """Return what merging adds to b, (out,)."""
        shift: Tensor = self.scale * self.lora_B.bias  # type: ignore[assignment, operator]
        return shift


class DoraPatch(LoraPatch):
    """A, B and the length of each row: y = m / ||W + s B A|| * (x W^T + s x A^T B^T) + b.

    The norm carries no gradient. It comes from narrow products; W + s B A is formed for small maps only.
    """

    composes = False  # the norm is of W and the product alone

    def __init__(self, seam: LinearSeam, rank: int, scale: float, dropout: float) -> None:
        super().__init__(seam, rank, scale, dropout)
        kernel = (1,) * (seam.stored.dim() - 2)
        self.lora_magnitude_vector = parameter((1, seam.width_out, *kernel) if kernel else (seam.width_out,), seam)
        self._squares: tuple[Any, Tensor] | None = None  # of the rows of W, and the state of W they belong to
        self._norm: tuple[Any, Tensor, Tensor, Tensor] | None = None  # for passes without gradients

    @torch.no_grad()
    def measure(self, seam: LinearSeam) -> None:
        """Set the lengths to what they are, so that the map is as without them.

        Args:
            seam: the map.
        """
        self.lora_magnitude_vector.copy_(self.norm(seam).view_as(self.lora_magnitude_vector))

    def norm(self, seam: LinearSeam) -> Tensor:
        """Return the length of each row of W + s B A.

        ||w + s b A||^2 = ||w||^2 + 2 s b (A w) + s^2 b (A A^T) b, row by row. Where these nearly cancel, rounding
        would show, so the rows are then formed after all, as they are for small maps. Passes without gradients, as in
        generation, keep the norm for as long as A and B hold the same numbers.

        Args:
            seam: the map.
        Returns:
            (out,), without a gradient.
        """
        keep, state = not torch.is_grad_enabled(), _state(seam.stored)
        with torch.no_grad():
            down, up, scale = self.product(seam)
            known = self._norm if keep and state is not None else None
            # by value: torch's fused optimizers do not count what they write
            if known and known[0] == state and torch.equal(known[1], down) and torch.equal(known[2], up):
                return known[3]
            found = self._measured(seam, down.flatten(1), scale * up.flatten(1), state)
            self._norm = (state, down.clone(), up.clone(), found) if keep else None
        return found

    def _measured(self, seam: LinearSeam, a: Tensor, b: Tensor, state: Any) -> Tensor:
        weight = seam.weight.to(a.dtype)  # (out, in); a is (rank, in), b (out, rank)
        if weight.numel() <= _SMALL:
            return (weight + b @ a).square().sum(1).sqrt()
        if self._squares is None or state is None or self._squares[0] != state:
            self._squares = (state, weight.square().sum(1))
        own = self._squares[1]
        squares = own + (b * (2 * (weight @ a.t()) + b @ (a @ a.t()))).sum(1)
        if bool((squares < 0.01 * own).any()):
            squares = (weight + b @ a).square().sum(1)
        return squares.sqrt()

    def _gain(self, seam: LinearSeam) -> Tensor:
        """Return m / ||W + s B A||; rows of zeros, whose length is zero too, stay zeros."""
        norm = self.norm(seam)
        return self.lora_magnitude_vector.flatten() / norm.clamp_min(torch.finfo(norm.dtype).tiny)

    def factors(self, seam: LinearSeam) -> None:
        """Return None: the factors are never all this patch does."""
        return None

    def forward(self, x: Tensor, seam: LinearSeam) -> Tensor:
        """Compute the adapted map with one frozen product; with two while it drops inputs, as PEFT."""
        down, up, scale = self.product(seam)
        gain, bias = _along(self._gain(seam), seam), seam.bias
        if self.dropping(seam, self.dropout):
            y: Tensor = seam.base(x)
            dropped = seam.drop(x, self.dropout)
            part = (gain - 1) * _frozen(dropped, seam) + gain * scale * seam.low_rank(dropped, down, up)
            return y + part.to(y.dtype)
        if seam.fused and x.dtype == seam.stored.dtype == down.dtype:
            plain = direction = one_low_rank(x, seam.weight, None, down, up, scale)
        else:
            plain = _frozen(x, seam)
            direction = plain + scale * seam.low_rank(x, down, up)
        if bias is None:
            return (gain * direction).to(plain.dtype)
        return torch.addcmul(_along(bias, seam).to(direction.dtype), gain, direction).to(plain.dtype)

    def weight_change(self, seam: LinearSeam) -> Tensor:
        """Return what merging adds to W, (out, in)."""
        weight = seam.weight.to(self.lora_magnitude_vector.dtype)
        return self._gain(seam)[:, None] * (weight + super().weight_change(seam)) - weight


def _state(weight: Tensor) -> tuple[Any, ...] | None:
    """Tell whether a frozen weight was written to between two calls; None where that cannot be told."""
    return None if weight.is_inference() else (weight.data_ptr(), weight.dtype, weight._version)


def _along(vector: Tensor, seam: LinearSeam) -> Tensor:
    """Lay one number per output along the outputs of a map."""
    return vector.view(-1, *(1,) * (seam.stored.dim() - 2))


def _frozen(x: Tensor, seam: LinearSeam) -> Tensor:
    """Map by W alone."""
    if not seam.quantised:
        return seam.apply(x, seam.weight, None)
    y: Tensor = seam.base(x)
    return y if seam.bias is None else y - seam.bias
