"""The same recipe with several seeds."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.ensembles.making.base import Making


@register("ensembles")
class Seeds(Making):
    """Train the recipe with several seeds: other starts, orders of rows and dropout.

    Source: Lakshminarayanan et al. 2017, arXiv:1612.01474, without adversarial rows.
    """

    name: ClassVar[str] = "seeds"
    paper: ClassVar[str] = "Lakshminarayanan et al. 2017, arXiv:1612.01474"
    alone: ClassVar[bool] = True

    same_start: bool = setting(
        False, "Let all members begin at the recipe's own random weights, as a mean of weights (soup) needs."
    )

    def start_seed(self, seed: int) -> int | None:
        """The recipe's, where members begin alike."""
        return seed if self.same_start else None
