"""Members that train on resampled rows."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from tunesmith.core.arrays import Codes
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.ensembles.making.base import Making


@register("ensembles")
class Bagging(Making):
    """Train every member on rows drawn from each label's rows with replacement, as many as it has, or a share of them.

    Source: Breiman 1996, Machine Learning 24, 123-140. Differs: drawn label by label, so that none is lost.
    """

    name: ClassVar[str] = "bagging"
    paper: ClassVar[str] = "Breiman 1996, Machine Learning 24"
    own_rows: ClassVar[bool] = True

    fraction: float = setting(1.0, "Rows drawn over the rows that a label has.", unit="fraction", gt=0, le=1)
    replacement: bool = setting(True, "Whether a row may be drawn several times; needs fraction below 1 when false.")
    same_start: bool = setting(
        False, "Let all members begin at the recipe's own random weights, as a mean of weights (soup) needs."
    )

    def start_seed(self, seed: int) -> int | None:
        """The recipe's, where members begin alike."""
        return seed if self.same_start else None

    def rows(self, labels: Codes, draw: np.random.Generator) -> Codes:
        """Draw label by label."""
        found = []
        for code in np.unique(labels):
            own = np.flatnonzero(labels == code)
            found.append(draw.choice(own, math.ceil(self.fraction * len(own)), replace=self.replacement))
        return np.concatenate(found)

    def problems(self, recipe: object) -> list[str]:
        """Refuse members that would all have the same rows."""
        if self.replacement or self.fraction < 1:
            return []
        return [
            "ensemble.replacement: without it and with fraction 1 every member would train on the same rows. Lower "
            "ensemble.fraction, or draw with replacement."
        ]
