"""Random search: what every other strategy has to beat."""

from __future__ import annotations

from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.search.bookkeeping import optuna
from tunesmith.search.space import Space
from tunesmith.search.strategies.sampling import Sampling


@register("strategies")
class Random(Sampling):
    """Every point is drawn independently of all others.

    Source: Bergstra and Bengio 2012, Journal of Machine Learning Research 13.
    """

    name: ClassVar[str] = "random"
    paper: ClassVar[str] = "Bergstra and Bengio 2012, JMLR 13:281-305"

    def sampler(self, space: Space, seed: int) -> Any:
        """Draw by chance."""
        return optuna().samplers.RandomSampler(seed=seed)
