"""The first trial of a search tells how long one takes, and whether the budget is shorter than that."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tunesmith.core.errors import RecipeError
from tunesmith.search.budget import Budget

_SURE = 0.05  # share of the first trial after which its time is told in advance


class TooShort(Exception):
    """Carries an error through a pass, which would take it for a trial's own.

    Args:
        seconds: that one trial takes, opening included.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds

    def worded(self, budget: Budget) -> RecipeError:
        """Word that a budget is shorter than one trial.

        Args:
            budget: it.
        Returns:
            The error.
        """
        return RecipeError(
            f"budget: {budget.seconds:.0f} s is shorter than one trial, which takes about {math.ceil(self.seconds)} s "
            f"here (the best one is trained once more at the end). Give at least {math.ceil(2 * self.seconds)}s, or "
            "make trials shorter: training.epochs, fewer rows."
        )


@dataclass
class Watch:
    """Watches the first trial of a search.

    Args:
        budget: of the search.
        first: seconds and share of the trial when it was looked at first.
    """

    budget: Budget
    first: tuple[float, float] | None = None

    def tick(self, share: float) -> None:
        """Refuse a budget that the trial alone would outlast, as soon as that is known.

        Args:
            share: of the trial that is done. [fraction]
        Raises:
            TooShort: it would.
        """
        if self.budget.seconds is None:
            return
        elapsed = self.budget.elapsed
        self.first = self.first or (elapsed, share)
        began, done = self.first
        if share - done >= _SURE or elapsed > self.budget.seconds:
            whole = began + (elapsed - began) * (1 - done) / max(share - done, 1e-9) if share > done else elapsed
            if whole > self.budget.seconds:
                raise TooShort(whole)
