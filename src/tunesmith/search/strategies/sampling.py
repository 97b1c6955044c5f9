"""What a strategy for settings is: a sampler that draws points of a space, and a rule that stops trials early."""

from __future__ import annotations

from typing import Any, ClassVar

from tunesmith.core.settings import Component
from tunesmith.search.bookkeeping import optuna
from tunesmith.search.space import Space


class Sampling(Component):
    """Base of every strategy that searches settings; its file registers one subclass with `@register("strategies")`.

    It draws from its seed and from the trials that ended alone, so the same seed and the same scores give the same
    trials.
    """

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    of: ClassVar[str] = "settings"
    batch: ClassVar[int | None] = None  # most candidates drawn without scores of each other; None for any number

    def sampler(self, space: Space, seed: int) -> Any:
        """Make what draws.

        Args:
            space: that is searched.
            seed: of everything random.
        Returns:
            A sampler of optuna.
        """
        raise NotImplementedError

    def stopper(self, epochs: int) -> Any:
        """Make what ends a trial after an epoch, because others were better there.

        Args:
            epochs: most of any trial. [count]
        Returns:
            A pruner of optuna; by default one that ends none.
        """
        return optuna().pruners.NopPruner()

    def points(self, space: Space, seed: int) -> list[dict[str, Any]] | None:
        """List the trials where they are known from the beginning.

        Args:
            space: that is searched.
            seed: of their order.
        Returns:
            Values by parameter; None where the sampler draws them.
        """
        return None
