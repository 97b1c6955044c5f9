"""What a maker is: it makes several members of one recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from tunesmith.core.arrays import Codes
from tunesmith.core.settings import Component, setting
from tunesmith.training.trial import Trial


class Making(Component):
    """Base of every way to make members. Its file registers one subclass with `@register("ensembles")`."""

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    combine: ClassVar[str] = "average"  # what puts the members together where the recipe does not say it
    alone: ClassVar[bool] = False  # whether the first member is the recipe trained by itself
    in_turn: ClassVar[bool] = False  # whether a member needs those before it
    own_rows: ClassVar[bool] = False  # whether members train on rows, or weights of rows, of their own
    at_once: ClassVar[int] = 0  # trainings that give all members; 0 for one each

    count: int = setting(5, "How many members.", unit="count", ge=2, le=100)
    compare: bool = setting(
        True, "Train the recipe by itself in the same pass, where no member is that, and measure the gain over it."
    )

    def variants(self, seed: int) -> list[dict[str, Any]]:
        """Return what each training changes in the recipe.

        Args:
            seed: of the recipe.
        Returns:
            Values of method, training and seed.
        """
        return [{"seed": (seed + number) % 2**32} for number in range(self.at_once or self.count)]

    def start_seed(self, seed: int) -> int | None:
        """Return the seed of the weights that members begin with; None for each one's own.

        Args:
            seed: of the recipe.
        """
        return None

    def rows(self, labels: Codes, draw: np.random.Generator) -> Codes:
        """Draw the rows that a member trains on.

        Args:
            labels: (rows,), of all training rows.
            draw: of the member.
        Returns:
            Numbers of rows; one may stand several times.
        """
        return np.arange(len(labels))

    def trial(self, facts: dict[str, Any]) -> Trial:
        """Make what trains a member.

        Args:
            facts: arguments of `Trial`.
        Returns:
            The trial, ready to fit.
        """
        return Trial(**facts)

    def states(self, trial: Trial) -> Sequence[list[Tensor]]:
        """Return the states of one training that are members each.

        Args:
            trial: after training.
        Returns:
            One list of tensors per member; none where the trial's own state is the only one.
        """
        return []

    def problems(self, recipe: Any) -> list[str]:
        """Say what of the recipe does not go with this way.

        Args:
            recipe: each key checked.
        Returns:
            Sentences.
        """
        return []
