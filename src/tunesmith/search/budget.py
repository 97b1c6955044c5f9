"""How much a search may try: evaluations, or seconds."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

from tunesmith.core.errors import RecipeError
from tunesmith.search.problem import BudgetSpent

_FORM = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h)?")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclass
class Budget:
    """What may be spent, and what was.

    Args:
        evaluations: one is a candidate on all rows that choose, a third of the rows is a third of one; no limit when
            None. [count]
        seconds: of searching; no limit when None.
    """

    evaluations: float | None = None
    seconds: float | None = None
    spent: float = 0.0
    _began: float = field(default_factory=time.perf_counter, repr=False)

    @classmethod
    def read(cls, text: str | int) -> Budget:
        """Read what a user wrote.

        Args:
            text: "200" evaluations, "60s", "5m" or "1h".
        Returns:
            The budget.
        Raises:
            RecipeError: something else, or nothing at all.
        """
        match = _FORM.fullmatch(str(text).strip())
        if match is None:
            raise RecipeError(
                f"budget: '{text}' is not understood. Write a number of evaluations (200), or a time: 60s, 5m, 1h."
            )
        number, unit = float(match.group(1)), match.group(2)
        if number == 0:
            raise RecipeError(f"budget: '{text}' allows nothing to be tried. Give at least 1 evaluation, or some time.")
        if unit is None and number < 1:
            raise RecipeError(f"budget: {text} evaluations are not enough for the start alone. Give at least 1.")
        return cls(number) if unit is None else cls(None, number * _SECONDS[unit])

    @property
    def elapsed(self) -> float:
        """Seconds of searching so far."""
        return time.perf_counter() - self._began

    def begin(self) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def spend(self, share: float) -> None:
        """Take an evaluation from the budget.

        Args:
            share: of the rows that it reads. [fraction]
        Raises:
            BudgetSpent: it is not left.
        """
        if self.evaluations is not None and self.spent + share > self.evaluations + 1e-9:
            raise BudgetSpent
        if self.seconds is not None and self.elapsed >= self.seconds and self.spent:
            raise BudgetSpent
        self.spent += share

    def resume_at(self, seconds: float) -> None:
        """Set the clock to what it showed when an evaluation of an earlier search ended.

        Args:
            seconds: of searching.
        """
        self._began = time.perf_counter() - seconds

    def plain(self) -> dict[str, float | None]:
        """Return the limits as plain values."""
        return {"evaluations": self.evaluations, "seconds": self.seconds}
