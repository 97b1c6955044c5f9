"""A learning rate that stays, and falls at the end."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.schedules.base import Schedule


@register("schedules")
class WarmupStableDecay(Schedule):
    """The rate stays at 1 and falls in the last share of the steps; q runs from 0 to 1 there.

    Forms of the fall from 1 to `end`: 1 - q, (1 + cos(pi q)) / 2, or 1 - sqrt(q).

    Source: Hu et al. 2024, arXiv:2404.06395, section 4; 1 - sqrt: Haegele et al. 2024, arXiv:2405.18392.
    """

    name: ClassVar[str] = "warmup-stable-decay"
    paper: ClassVar[str] = "Hu et al. 2024, arXiv:2404.06395"

    decay_fraction: float = setting(0.2, "Share of the steps in which it falls.", unit="fraction", gt=0, le=1)
    form: Literal["linear", "cosine", "root"] = setting("linear", "Form of the fall.")
    end: float = setting(0.0, "Share of the rate at the end.", unit="fraction", ge=0, le=1)

    def at(self, done: float) -> float:
        """Return 1, or the height of the fall."""
        fallen = max(0.0, done - (1 - self.decay_fraction)) / self.decay_fraction
        forms = {"linear": fallen, "cosine": 0.5 * (1 - math.cos(math.pi * fallen)), "root": math.sqrt(fallen)}
        return 1 - (1 - self.end) * forms[self.form]
