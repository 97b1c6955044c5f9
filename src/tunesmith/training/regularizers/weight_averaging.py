"""Stochastic weight averaging."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.regularizers.base import OnParameters


@register("regularizers")
class WeightAveraging(OnParameters):
    """Answers with the mean of the parameters after every step of the last part of training.

    Before that part begins the parameters themselves answer. A rate that stays high there is part of the idea:
    schedule constant, or one with an end.

    Source: Izmailov et al. 2018, arXiv:1803.05407, algorithm 1. Differs: every step counts, not every cycle.
    """

    name: ClassVar[str] = "weight-averaging"
    paper: ClassVar[str] = "Izmailov et al. 2018, arXiv:1803.05407"
    averages: ClassVar[bool] = True

    start: float = setting(0.75, "Share of the steps before it begins.", unit="fraction", ge=0, lt=1)

    def share(self, step: int, total: int) -> float:
        """Return 1 over the steps averaged so far."""
        return 1 / max(1, step - round(self.start * total))
