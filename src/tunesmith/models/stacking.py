"""Several patches at one linear map, each working on what the ones before it made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.core.errors import CompatibilityError
from tunesmith.models.linear import LinearSeam
from tunesmith.models.patches import LowRankPatch, Patch


class _Inner:
    """A linear map as the next patch of a stack sees it: the frozen map with the patches before.

    Args:
        seam: the frozen map.
        weight: W with what the patches before add to it; None while a pass runs.
        bias: b likewise.
    """

    quantised = True  # nobody may compute with W itself: the patches before are not in it
    fused = False

    def __init__(self, seam: LinearSeam, weight: Tensor | None = None, bias: Tensor | None = None) -> None:
        self.seam, self._weight, self._bias = seam, weight, bias
        self._x: Tensor | None = None
        self._y: Tensor | None = None
        self._run: Any = seam.base

    def after(self, x: Tensor, y: Tensor, run: Any) -> _Inner:
        """Remember what the patches before made of an input.

        Args:
            x: the input.
            y: what they made of it.
            run: how to make it of another input.
        Returns:
            Itself.
        """
        self._x, self._y, self._run = x, y, run
        return self

    def base(self, x: Tensor) -> Tensor:
        """Map by the frozen map and the patches before."""
        if x is self._x and self._y is not None:
            return self._y
        y: Tensor = self._run(x)
        return y

    def plus_low_rank(self, x: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
        """Add a low-rank product to what the patches before make."""
        y = self.base(x)
        return y + (scale * self.seam.low_rank(x, down, up)).to(y.dtype)

    @property
    def weight(self) -> Tensor:
        """W with what the patches before add to it."""
        return self.seam.weight if self._weight is None else self._weight

    @property
    def bias(self) -> Tensor | None:
        """b with what the patches before add to it."""
        return self.seam.bias if self._weight is None else self._bias

    def __getattr__(self, name: str) -> Any:
        return getattr(self.seam, name)


class Stack(Patch):
    """Patches of several methods at one map, first to last, each with an optional gate.

    y_i = y_{i-1} + g_i (patch_i(x, y_{i-1}) - y_{i-1}), y_0 the frozen map; without gates g_i = 1.

    Args:
        members: number of the member and its patch.
        gates: per member, the gate of this map's layer; empty for none.
    """

    def __init__(self, members: Sequence[tuple[int, nn.Module]], gates: dict[int, nn.Parameter]) -> None:
        super().__init__()
        self.members = nn.ModuleDict({str(number): patch for number, patch in members})
        self.gates = nn.ParameterDict({str(number): gate for number, gate in gates.items()})

    def factors(self, seam: LinearSeam) -> tuple[Tensor, Tensor, float] | None:
        """Return all members' factors side by side when low-rank products are all they are."""
        downs, ups = [], []
        for number, patch in self.members.items():
            found = patch.factors(seam) if isinstance(patch, LowRankPatch) else None
            if found is None or found[0].dim() != 2:
                return None
            gate = self.gates.get(number, 1.0)
            downs.append(found[0])
            ups.append(found[1] * (found[2] * gate))
        return torch.cat(downs), torch.cat(ups, dim=1), 1.0

    def forward(self, x: Tensor, seam: LinearSeam) -> Tensor:
        """Compute the adapted map."""
        factors = self.factors(seam)
        return seam.plus_low_rank(x, *factors) if factors else self._up_to(len(self.members), x, seam)

    def _up_to(self, count: int, x: Tensor, seam: LinearSeam) -> Tensor:
        """Compute with the first members only."""
        if count == 0:
            y: Tensor = seam.base(x)
            return y
        number, patch = list(self.members.items())[count - 1]
        if count == 1 and number not in self.gates:
            whole: Tensor = patch(x, seam)
            return whole
        before = self._up_to(count - 1, x, seam)
        inner = _Inner(seam).after(x, before, lambda other: self._up_to(count - 1, other, seam))
        after: Tensor = patch(x, inner)
        return after if number not in self.gates else before + self.gates[number] * (after - before)

    def weight_change(self, seam: LinearSeam) -> Tensor:
        """Return what all members together add to W, (out, in)."""
        return self._merged(seam)[0] - seam.weight

    def bias_change(self, seam: LinearSeam) -> Tensor | None:
        """Return what all members together add to b, (out,), or None."""
        bias = self._merged(seam)[1]
        own = seam.bias
        return None if bias is None else bias if own is None else bias - own

    def _merged(self, seam: LinearSeam) -> tuple[Tensor, Tensor | None]:
        weight, bias = seam.weight, seam.bias
        for number, patch in self.members.items():
            inner, gate = _Inner(seam, weight, bias), self.gates.get(number, 1.0)
            shift = patch.bias_change(inner)  # type: ignore[operator]
            weight = weight + gate * patch.weight_change(inner)  # type: ignore[operator]
            if shift is not None:
                bias = gate * shift if bias is None else bias + gate * shift
        return weight, bias


def stacked(seam: LinearSeam, members: Sequence[tuple[int, nn.Module]], gates: dict[int, nn.Parameter]) -> Stack:
    """Put several patches at one map.

    Args:
        seam: the map.
        members: number of the member and its patch, first to last.
        gates: per member; empty for none.
    Returns:
        The stack.
    Raises:
        CompatibilityError: a patch that must be the first is not.
    """
    for position, (_, patch) in enumerate(members):
        if position and not getattr(patch, "composes", False):
            raise CompatibilityError(
                f"fusion: at '{seam.path}' the patch {type(patch).__name__} computes with the frozen weight itself, so "
                "nothing may come before it. Name its method first among the members."
            )
    return Stack(members, gates)
