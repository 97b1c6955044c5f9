"""Members along one training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from tunesmith.core.registry import register
from tunesmith.ensembles.making.base import Making
from tunesmith.training.trial import Trial


@register("ensembles")
class Snapshots(Making):
    """Train once with a learning rate that falls to zero `count` times, and keep the state at the end of each fall.

    It costs what one training costs. `training.epochs` is a multiple of `count`; there are no steps of warm-up.

    Source: Huang et al. 2017, arXiv:1704.00109.
    """

    name: ClassVar[str] = "snapshots"
    paper: ClassVar[str] = "Huang et al. 2017, arXiv:1704.00109"
    at_once: ClassVar[int] = 1

    def variants(self, seed: int) -> list[dict[str, Any]]:
        """Let the rate fall several times."""
        schedule = {"name": "restarts", "cycles": self.count}
        return [{"training": {"schedule": schedule, "warmup_fraction": 0.0}}]

    def trial(self, facts: dict[str, Any]) -> Trial:
        """Make a trial that keeps states."""
        return SnapshotTrial(self.count, facts)

    def states(self, trial: Trial) -> Sequence[list[Tensor]]:
        """Return what was kept."""
        assert isinstance(trial, SnapshotTrial)
        return trial.snapshots

    def problems(self, recipe: Any) -> list[str]:
        """Refuse falls that do not end with an epoch, and what would end them or set the rate besides."""
        training, found = recipe.training, []
        if training.epochs % self.count:
            found.append(
                f"training.epochs={training.epochs}: the learning rate falls ensemble.count={self.count} times, each "
                f"time in as many epochs. Take a multiple of {self.count}, or change ensemble.count."
            )
        plain, own = type(training)().model_dump(), training.model_dump()
        sets = [key for key in ("schedule", "warmup_fraction") if own[key] != plain[key]]
        ends = [key for key in ("max_steps", "patience") if getattr(training, key) is not None]
        keeps = ["keep_best"] if training.keep_best > 1 else []
        for key in (*sets, *ends, *keeps):
            found.append(f"training.{key}: snapshots decide it: states at the ends of falls are kept. Leave it out.")
        return found


class SnapshotTrial(Trial):
    """A trial that keeps its state several times, at even distances.

    Args:
        count: how often. [count]
        facts: arguments of `Trial`.
    """

    def __init__(self, count: int, facts: dict[str, Any]) -> None:
        super().__init__(**facts)
        self._each = self.settings.epochs // count
        self.snapshots: list[list[Tensor]] = []

    def close_epoch(self) -> None:
        """Score the state, and keep it where a fall ends."""
        super().close_epoch()
        if self.epoch % self._each == 0 and not self.trained.diverged:
            kept = self.answers() or self.tuned.parameters()  # averages go on in place
            self.snapshots.append([one.detach().clone() for one in kept])

    def state(self) -> dict[str, Any]:
        """Return what the next step depends on, and what was kept."""
        return {**super().state(), "snapshots": self.snapshots}

    def resume(self, state: Mapping[str, Any], where: str) -> None:
        """Go on from a state.

        Args:
            state: from `state`.
            where: what to call its source in an error.
        """
        super().resume(state, where)
        self.snapshots = [list(one) for one in state["snapshots"]]
