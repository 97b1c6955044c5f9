"""Hyperband: successive halving with several first rungs side by side."""

from __future__ import annotations

from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.search.bookkeeping import optuna
from tunesmith.search.strategies.tpe import Tpe


@register("strategies")
class Hyperband(Tpe):
    """Points as by TPE, halved in brackets that differ in the epochs every trial gets.

    Source: Li et al. 2017, arXiv:1603.06560; with a model: Falkner et al. 2018 (BOHB), arXiv:1807.01774; optuna's form
        of it.
    """

    name: ClassVar[str] = "hyperband"
    paper: ClassVar[str] = "Li et al. 2017, arXiv:1603.06560"

    least: int = setting(1, "Epochs that every trial of the first bracket trains.", unit="count", ge=1)
    factor: int = setting(3, "One in so many goes on, to so many times the epochs.", unit="count", ge=2)

    def stopper(self, epochs: int) -> Any:
        """Halve in brackets."""
        return optuna().pruners.HyperbandPruner(
            min_resource=self.least, max_resource=max(epochs, self.least), reduction_factor=self.factor
        )
