"""Sparse training."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.regularizers.base import OnParameters


@register("regularizers")
class Sparse(OnParameters):
    """After every step a share of each parameter's numbers is zero: the smallest ones, or some drawn at the start.

    The share of the smallest rises as s (1 - (1 - t)^3), t from 0 to 1 over `rising_fraction` of the steps; one that
    was zero comes back where its update makes it large. Drawn ones are zero from the start and stay so.

    Source: Zhu and Gupta 2017, arXiv:1710.01878, eq. 1; drawn: Mocanu et al. 2018, arXiv:1707.04780, without rewiring.
    """

    name: ClassVar[str] = "sparse"
    paper: ClassVar[str] = "Zhu and Gupta 2017, arXiv:1710.01878"
    sparsifies: ClassVar[bool] = True

    zeros: float = setting(0.5, "Share of every parameter's numbers that are zero.", unit="fraction", gt=0, lt=1)
    which: Literal["smallest", "drawn"] = setting("smallest", "The smallest in size, or some that are drawn once.")
    rising_fraction: float = setting(0.5, "Share of the steps in which the smallest become so many.", gt=0, le=1)

    def thin(self, now: Tensor, rank: Tensor, progress: float) -> None:
        """Set numbers to zero, in place.

        Args:
            now: the parameter.
            rank: of the same shape, uniform numbers that were drawn once.
            progress: share of the steps made. [fraction]
        """
        share = self.zeros
        if self.which == "smallest":
            share *= 1 - (1 - min(1.0, progress / self.rising_fraction)) ** 3
        count = int(share * now.numel())
        if count:
            order = now.abs() if self.which == "smallest" else rank
            now.view(-1)[order.flatten().argsort(stable=True)[:count]] = 0.0
