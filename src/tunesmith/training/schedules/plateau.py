"""A learning rate that falls where validation gets no better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.schedules.base import Schedule


@register("schedules")
class Plateau(Schedule):
    """The rate is multiplied by a factor whenever the validation loss was no better for some epochs: factor^k."""

    name: ClassVar[str] = "plateau"

    factor: float = setting(0.5, "What it is multiplied by.", gt=0, lt=1)
    epochs: int = setting(1, "Epochs without a better loss before it falls.", unit="count", ge=1)
    threshold: float = setting(1e-4, "Share of the best loss by which a better one is lower.", ge=0, lt=1)
    end: float = setting(0.0, "Smallest share of the rate.", unit="fraction", ge=0, le=1)

    def share(self, step: int, total: int, losses: Sequence[float] = ()) -> float:
        """Go through the losses: a better one, or a fall, starts the count anew."""
        best, waited, falls = math.inf, 0, 0
        for loss in losses:
            if best == math.inf or loss < best - self.threshold * abs(best):
                best, waited = loss, 0
            else:
                waited += 1
            if waited == self.epochs:
                waited, falls = 0, falls + 1
        return max(self.end, self.factor**falls)
