"""Exponential moving average of the trained parameters."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.regularizers.base import OnParameters


@register("regularizers")
class Ema(OnParameters):
    """Answers with a moving average of the parameters: a <- d a + (1 - d) w, d = min(decay, (1 + t) / (10 + t)).

    The average is what is scored after an epoch, kept and saved; training goes on from the parameters themselves.

    Source: Polyak and Juditsky 1992, doi:10.1137/0330046; the smaller decay of early steps is TensorFlow's.
    """

    name: ClassVar[str] = "ema"
    paper: ClassVar[str] = "Polyak and Juditsky 1992, doi:10.1137/0330046"
    averages: ClassVar[bool] = True

    decay: float = setting(0.99, "Share of the average that stays in a step.", unit="fraction", gt=0, lt=1)

    def share(self, step: int, total: int) -> float:
        """Return 1 - d."""
        return 1 - min(self.decay, (1 + step) / (10 + step))
