"""CMA-ES: evolution of a normal distribution over the numbers of a space."""

from __future__ import annotations

from typing import Any, ClassVar

from tunesmith.core.errors import RecipeError
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.search.bookkeeping import needed, optuna
from tunesmith.search.space import Range, Space
from tunesmith.search.strategies.sampling import Sampling


@register("strategies")
class CmaEs(Sampling):
    """A normal distribution that moves to the better half of its draws and takes their shape; choices come from TPE.

    Whole numbers and steps keep a least chance to change (a margin), so that the distribution does not end on one.

    Source: Hansen 2016, arXiv:1604.00772; Hamano et al. 2022, arXiv:2205.13482 (margin). Differs: choices, which have
        no covariance, are drawn by a tree-structured Parzen estimator.
    """

    name: ClassVar[str] = "cma-es"
    paper: ClassVar[str] = "Hansen 2016, arXiv:1604.00772"
    batch: ClassVar[int | None] = 8

    startup: int = setting(6, "Trials drawn by chance first.", unit="count", ge=1)
    spread: float | None = setting(
        None, "Width of the first distribution, in widths of the space; a sixth when empty.", gt=0
    )

    def sampler(self, space: Space, seed: int) -> Any:
        """Evolve."""
        numbers = [node for node in space.nodes.values() if isinstance(node, Range)]
        if len(numbers) < 2:
            raise RecipeError(
                f"strategy cma-es: it evolves at least two ranges, and the space has {len(numbers)}. Take tpe, or "
                "genetic."
            )
        needed("cmaes", "the strategy cma-es")
        samplers = optuna().samplers
        others = samplers.TPESampler(n_startup_trials=self.startup, constant_liar=True, seed=seed)
        return samplers.CmaEsSampler(
            sigma0=self.spread, n_startup_trials=self.startup, independent_sampler=others, seed=seed,
            warn_independent_sampling=False, with_margin=True,
        )  # fmt: skip
