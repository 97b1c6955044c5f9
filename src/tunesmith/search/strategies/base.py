"""What a strategy for prompts is: settings and one verb."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tunesmith.core.errors import RecipeError, unknown
from tunesmith.core.registry import components
from tunesmith.core.settings import Component
from tunesmith.recipe.loading import build_component
from tunesmith.search.problem import Problem


class Strategy(Component):
    """Base of every strategy that searches prompts; its file registers one subclass with `@register("strategies")`."""

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    of: ClassVar[str] = "prompts"

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


def build_strategy(name: str, settings: Mapping[str, Any], of: str) -> Any:
    """Build a strategy for what is searched.

    Args:
        name: as registered.
        settings: of it.
        of: "prompts" or "settings".
    Returns:
        The strategy.
    Raises:
        RecipeError: unknown, of something else, or a setting is wrong.
    """
    fitting = {key for key, one in components("strategies").items() if one.of == of}
    if name not in fitting:
        raise RecipeError(unknown(f"strategy for {of}", name, fitting))
    return build_component("strategies", name, settings)
