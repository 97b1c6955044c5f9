"""Tree-structured Parzen estimator."""

from __future__ import annotations

from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.search.bookkeeping import optuna
from tunesmith.search.space import Space
from tunesmith.search.strategies.sampling import Sampling


@register("strategies")
class Tpe(Sampling):
    """Draws where good trials are dense and bad ones are not; of any kind of field, those inside options too.

    score(x) = l(x) / g(x), where l is the density of the better trials and g that of the others.

    Source: Bergstra et al. 2011, Algorithms for hyper-parameter optimization; optuna's form of it.
    """

    name: ClassVar[str] = "tpe"
    paper: ClassVar[str] = "Bergstra et al. 2011, NeurIPS"
    batch: ClassVar[int | None] = 8

    startup: int = setting(10, "Trials drawn by chance first.", unit="count", ge=1)
    candidates: int = setting(24, "Points drawn from l, of which the best is tried.", unit="count", ge=1)
    together: bool = setting(True, "Model how fields depend on each other.")

    def sampler(self, space: Space, seed: int) -> Any:
        """Model the trials; those that still train count as bad, so that a batch spreads."""
        return optuna().samplers.TPESampler(
            n_startup_trials=self.startup, n_ei_candidates=self.candidates, multivariate=self.together,
            group=self.together, constant_liar=True, seed=seed,
        )  # fmt: skip
