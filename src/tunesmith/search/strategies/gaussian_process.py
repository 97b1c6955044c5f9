"""Bayesian search with a Gaussian process."""

from __future__ import annotations

from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.search.bookkeeping import optuna
from tunesmith.search.space import Space
from tunesmith.search.strategies.sampling import Sampling


@register("strategies")
class GaussianProcess(Sampling):
    """Tries where a Gaussian process over all trials expects the largest improvement (log expected improvement).

    Source: Snoek et al. 2012, arXiv:1206.2944; Ament et al. 2023, arXiv:2310.20708; optuna's form of it.
    """

    name: ClassVar[str] = "gaussian-process"
    paper: ClassVar[str] = "Snoek et al. 2012, arXiv:1206.2944"
    batch: ClassVar[int | None] = 4

    startup: int = setting(10, "Trials drawn by chance first.", unit="count", ge=1)
    noisy: bool = setting(True, "Scores are noisy: the process need not go through them.")

    def sampler(self, space: Space, seed: int) -> Any:
        """Fit a process to the trials."""
        return optuna().samplers.GPSampler(
            seed=seed, n_startup_trials=self.startup, deterministic_objective=not self.noisy
        )
