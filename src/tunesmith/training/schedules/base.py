"""What a schedule is: which share of the highest learning rate a step takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tunesmith.core.settings import Component


class Schedule(Component):
    """Base of every schedule. Its file registers one subclass with `@register("schedules")`.

    The steps of `training.warmup_fraction`, in which the rate rises linearly, come before a schedule's own.
    """

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    rises: ClassVar[bool] = False  # by itself, so that there are no steps of warm-up

    def share(self, step: int, total: int, losses: Sequence[float] = ()) -> float:
        """Return the share of the highest learning rate at a step.

        Args:
            step: after the warm-up, 0 for the first.
            total: of the steps after the warm-up, at least 1. [count]
            losses: on validation after each epoch so far.
        Returns:
            A share between 0 and 1.
        """
        return self.at(step / total)

    def at(self, done: float) -> float:
        """Return the share at a place between the first step and the end.

        Args:
            done: 0 for the first step after the warm-up, below 1 for the last.
        Returns:
            A share between 0 and 1.
        """
        raise NotImplementedError
