"""Members that each look at what those before them got wrong."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from tunesmith.core.arrays import Array
from tunesmith.core.errors import DataError
from tunesmith.core.registry import register
from tunesmith.ensembles.making.base import Making


@register("ensembles")
class Boosting(Making):
    """Train members in turn, each on rows weighted by what those before it answered wrong.

    With C classes and the weighted share e of training rows that member k answers wrong, its vote counts
    a = log((1 - e) / e) + log(C - 1), and the rows that it got wrong weigh exp(a) times as much for the next one. A
    member that is no better than chance is dropped and ends it; one without an error ends it too.

    Source: Zhu et al. 2009, "Multi-class AdaBoost", Statistics and its Interface 2, 349-360, algorithm SAMME.
    """

    name: ClassVar[str] = "boosting"
    paper: ClassVar[str] = "Zhu et al. 2009, Statistics and its Interface 2"
    combine: ClassVar[str] = "vote"
    alone: ClassVar[bool] = True
    in_turn: ClassVar[bool] = True
    own_rows: ClassVar[bool] = True

    def judged(self, weights: Array, right: np.ndarray[Any, np.dtype[np.bool_]], classes: int) -> tuple[float, Array]:
        """Say how much a member's vote counts, and how much the rows weigh for the next one.

        Args:
            weights: (rows,), that it trained with.
            right: (rows,), what it answers right of them.
            classes: C.
        Returns:
            Its weight, not above 0 where it is no better than chance, and (rows,), together 1; both as of half an
            error where it makes none.
        """
        shares = weights / weights.sum()
        least = 0.5 / len(shares)
        error = float(np.clip(shares[~right].sum(), least, 1 - least))
        vote = math.log((1 - error) / error) + math.log(classes - 1)
        heavier = shares * np.where(right, 1.0, math.exp(vote))
        return vote, heavier / heavier.sum()

    def check_first(self, weights: Array, right: np.ndarray[Any, np.dtype[np.bool_]], classes: int) -> None:
        """Refuse a first member that leaves nothing to boost.

        Args:
            weights: (rows,), that it trained with.
            right: (rows,), what it answers right of the training rows.
            classes: C.
        Raises:
            DataError: it makes no error on rows that weigh anything, or is no better than chance.
        """
        wrong, share = int((~right).sum()), float(weights[~right].sum() / weights.sum())
        if not share:
            raise DataError(
                f"ensemble: boosting's first member answers all {len(right) - wrong:,} training rows right, so none is "
                "left to weigh more. Take a weaker one (lower training.epochs, training.learning_rate or method.rank), "
                "or another ensemble, for example bagging."
            )
        if self.judged(weights, right, classes)[0] <= 0:
            raise DataError(
                f"ensemble: boosting's first member answers {wrong:,} of {len(right):,} training rows wrong "
                f"({100 * share:.0f} % of their weight), which is no better than chance among {classes} labels. Train "
                "it longer (training.epochs), or raise training.learning_rate."
            )
