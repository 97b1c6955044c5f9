"""What a strategy is: settings and one verb."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tunesmith.core.settings import Component
from tunesmith.search.problem import Problem


class Strategy(Component):
    """Base of every strategy. A strategy's file registers one subclass with `@register("strategies")`."""

    name: ClassVar[str]
    paper: ClassVar[str] = ""

    def search(self, problem: Problem[Any], draw: np.random.Generator) -> None:
        """Score candidates until nothing more is tried; the problem remembers them.

        The start is always scored on all rows. What is drawn comes from `draw` alone, so the same seed and the same
        scores give the same candidates in the same order.

        Args:
            problem: what is searched.
            draw: of everything random.
        Raises:
            BudgetSpent: the budget ended first.
        """
        raise NotImplementedError
