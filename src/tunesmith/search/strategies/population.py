"""Population-based training: members whose settings change while they train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from tunesmith.core.errors import RecipeError
from tunesmith.core.registry import register
from tunesmith.core.seeds import derived
from tunesmith.core.settings import setting
from tunesmith.search.bookkeeping import optuna
from tunesmith.search.space import Range, Space
from tunesmith.search.strategies.sampling import Descent, Sampling
from tunesmith.search.trials import StudyTrial


@register("strategies")
class Population(Sampling):
    """Members that all go on training; the worst go on from a copy of one of the best, with perturbed settings.

    It goes by generations: a generation is one trial per member of `training.epochs` epochs. In the next one a member
    goes on from its own delta and head with its own settings; one of the worst share from those of one of the best
    share, each of its numbers multiplied by one of two factors or drawn anew.

    Source: Jaderberg et al. 2017, arXiv:1711.09846, truncation selection. Differs: the state of the optimizer is not
        copied, and every generation begins a schedule and an order of rows of its own, so that each trial is an
        ordinary run that starts from another.
    """

    name: ClassVar[str] = "population"
    paper: ClassVar[str] = "Jaderberg et al. 2017, arXiv:1711.09846"
    continues: ClassVar[bool] = True

    members: int = setting(8, "Members of the population.", unit="count", ge=2)
    replaced: float = setting(0.25, "Share of the worst that copy, and of the best that are copied.", gt=0, le=0.5)
    factor: float = setting(1.2, "A number is multiplied by it, or by 2 less it.", gt=1, lt=2)
    anew: float = setting(0.25, "How often a setting of a copy is drawn anew instead.", unit="fraction", ge=0, le=1)

    def sampler(self, space: Space, seed: int) -> Any:
        """Draw the first generation, and what is drawn anew."""
        return optuna().samplers.RandomSampler(seed=seed)

    def check(self, space: Space) -> None:
        """Refuse fields that the weights depend on, which members copy from each other."""
        wrong = [path for path in space.nodes if not path.startswith("training.") or path == "training.epochs"]
        if wrong:
            raise RecipeError(
                f"{wrong[0]}: members of the strategy population copy each other's weights and train for the same "
                "epochs, so it has to be the same in all. Give it one value and open other fields below training, or "
                "take tpe."
            )

    def ahead(self, number: int) -> int | None:
        """Draw the rest of a generation."""
        return self.members - number % self.members

    def descend(
        self, number: int, trials: Sequence[StudyTrial], space: Space, higher_is_better: bool, seed: int
    ) -> Descent | None:
        """Let a member go on, or copy a better one."""
        generation, member = divmod(number, self.members)
        before = trials[(generation - 1) * self.members : generation * self.members] if generation else []
        ranked = sorted(before, key=lambda one: one.key(higher_is_better))
        able = [one for one in ranked if one.outcome.state == "complete"]
        if not able:
            return None
        few = max(1, int(self.replaced * self.members))
        own = before[member]
        if own in able and own not in ranked[-few:]:
            return Descent(generation, own.number if own.same_as is None else own.same_as, dict(own.parameters))
        draw = np.random.default_rng(derived(seed, f"member {number}"))
        better = able[int(draw.integers(min(few, len(able))))]
        nodes, found = space.parameters(), dict[str, Any]()
        for name, value in better.parameters.items():
            node, anew, up = nodes[name], draw.random() < self.anew, draw.random() < 0.5
            if not anew:
                found[name] = _multiplied(node, value, self.factor, up) if isinstance(node, Range) else value
        return Descent(generation, better.number if better.same_as is None else better.same_as, found)


def _multiplied(node: Range, value: float, factor: float, up: bool) -> float | int:
    """Multiply a number, inside of its range; where it has steps, by at least one."""
    found = value * (factor if up else 2 - factor)
    step = node.step or (1 if node.whole else None)
    if step is not None:
        steps = round((found - value) / step) or (1 if up else -1)
        found = value + steps * step
    found = min(max(found, node.low), node.high)
    return round(found) if node.whole else float(found)
