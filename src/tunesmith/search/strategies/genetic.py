"""A genetic algorithm over choices and numbers alike."""

from __future__ import annotations

from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.search.bookkeeping import optuna
from tunesmith.search.space import Space
from tunesmith.search.strategies.sampling import Sampling


@register("strategies")
class Genetic(Sampling):
    """A population whose best members are crossed: numbers blended (BLX-alpha), choices from either, some changed.

    A number is changed by a mostly small step (polynomial mutation), a choice is drawn anew.

    Source: Deb et al. 2002 (NSGA-II, polynomial mutation), of one score; Eshelman and Schaffer 1993 (BLX-alpha);
        optuna's form of all.
    """

    name: ClassVar[str] = "genetic"
    paper: ClassVar[str] = "Deb et al. 2002, IEEE TEC 6(2)"
    batch: ClassVar[int | None] = 8

    population: int = setting(8, "Members of a generation.", unit="count", ge=2)
    crossing: float = setting(0.9, "Share of children with two parents.", unit="fraction", ge=0, le=1)
    mutation: float | None = setting(
        None, "How often a field is changed; once per child when empty.", unit="fraction", ge=0, le=1
    )

    def sampler(self, space: Space, seed: int) -> Any:
        """Breed."""
        samplers = optuna().samplers
        return samplers.NSGAIISampler(
            population_size=self.population, crossover=samplers.nsgaii.BLXAlphaCrossover(),
            crossover_prob=self.crossing, mutation=samplers.nsgaii.PolynomialMutation(), mutation_prob=self.mutation,
            seed=seed,
        )  # fmt: skip
