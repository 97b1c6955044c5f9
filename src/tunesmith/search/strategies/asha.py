"""Asynchronous successive halving over epochs."""

from __future__ import annotations

from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.search.bookkeeping import optuna
from tunesmith.search.strategies.random import Random


@register("strategies")
class Asha(Random):
    """Points by chance; a trial goes on after epochs least, least * factor, ... only among the best 1 / factor there.

    Source: Li et al. 2018, arXiv:1810.05934; optuna's form of it.
    """

    name: ClassVar[str] = "asha"
    paper: ClassVar[str] = "Li et al. 2018, arXiv:1810.05934"

    least: int = setting(1, "Epochs that every trial trains.", unit="count", ge=1)
    factor: int = setting(3, "One in so many goes on, to so many times the epochs.", unit="count", ge=2)

    def stopper(self, epochs: int) -> Any:
        """Halve."""
        return optuna().pruners.SuccessiveHalvingPruner(min_resource=self.least, reduction_factor=self.factor)
