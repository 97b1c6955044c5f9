"""What a strategy for settings is: a sampler that draws points of a space, and a rule that stops trials early."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tunesmith.core.settings import Component
from tunesmith.search.bookkeeping import optuna
from tunesmith.search.space import Space
from tunesmith.search.trials import StudyTrial


@dataclass(frozen=True)
class Descent:
    """What a trial goes on from.

    Args:
        generation: of the trial, from 1.
        parent: number of the trial whose delta and head it goes on from.
        parameters: value or label by parameter; one that is missing is drawn.
    """

    generation: int
    parent: int
    parameters: dict[str, Any]


class Sampling(Component):
    """Base of every strategy that searches settings; its file registers one subclass with `@register("strategies")`.

    It draws from its seed and from the trials that ended alone, so the same seed and the same scores give the same
    trials.
    """

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    of: ClassVar[str] = "settings"
    batch: ClassVar[int | None] = None  # most candidates drawn without scores of each other; None for any number
    continues: ClassVar[bool] = False  # whether trials go on from what earlier ones trained

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

    def more(
        self, trials: Sequence[StudyTrial], space: Space, higher_is_better: bool, asked: int, seed: int
    ) -> list[dict[str, Any]]:
        """List further trials, once all that `points` listed have ended.

        Args:
            trials: all that ended, in order.
            space: that is searched.
            higher_is_better: of the score.
            asked: how often it was asked before. [count]
            seed: of their order.
        Returns:
            Values by parameter; the search ends where there are none.
        """
        return []

    def check(self, space: Space) -> None:
        """Refuse a space that cannot be searched so, before anything is loaded.

        Args:
            space: that is searched.
        Raises:
            RecipeError: it cannot.
        """

    def ahead(self, number: int) -> int | None:
        """Say how many trials can be drawn without scores of each other.

        Args:
            number: of the first of them.
        Returns:
            So many at most; None for any number. [count]
        """
        return self.batch

    def descend(
        self, number: int, trials: Sequence[StudyTrial], space: Space, higher_is_better: bool, seed: int
    ) -> Descent | None:
        """Say what a trial goes on from.

        Args:
            number: of the trial.
            trials: all that ended, in order.
            space: that is searched.
            higher_is_better: of the score.
            seed: of everything random.
        Returns:
            A trial and settings; None for a trial that starts anew, which the sampler draws.
        """
        return None
