"""Numbers of a training, told to trackers while it goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.named import build_named
from tunesmith.core.progress import Bar
from tunesmith.recipe.loading import Checked
from tunesmith.training.trackers.base import Told, Tracker
from tunesmith.training.trial import Trial

_FAILED = object()


def trackers_of(checked: Checked) -> list[Tracker]:
    """Build a recipe's trackers, and refuse those whose package is missing before any work.

    Args:
        checked: the recipe.
    Returns:
        In their order.
    Raises:
        MissingDependency: names the extra to install.
    """
    found: list[Tracker] = [build_named("trackers", one) for one in checked.recipe.training.trackers]
    for one in found:
        one.check()
    return found


class Tracking:
    """Tells trackers what is new in trials after every step; one that fails is left out from then on, and that is said.

    Args:
        trials: in training, as they stand before the first step or after a checkpoint was read.
        checked: the recipe.
        output: of the run.
        say: told when a tracker fails.
    """

    def __init__(self, trials: Sequence[Trial], checked: Checked, output: Path, say: Callable[[str], None]) -> None:
        self._say = say
        self._told: list[tuple[str, Trial, Told]] = []
        self._done = {trial.name: (len(trial.trained.losses), len(trial.trained.history)) for trial in trials}
        self._trials = list(trials)
        settings = flat(checked.resolved())
        for tracker in trackers_of(checked):
            for trial in trials:
                begun = self._try(tracker.name, tracker.begin, output, trial.name, settings)
                if isinstance(begun, Told):
                    self._told.append((tracker.name, trial, begun))

    def watching(self, bar: Bar) -> Bar:
        """Tell trackers whenever a bar is told.

        Args:
            bar: told about every step.
        Returns:
            A bar.
        """

        def both(done: int, note: str = "") -> None:
            bar(done, note)
            self.tell()

        return both if self._told else bar

    def tell(self) -> None:
        """Tell what is new: losses of steps, rows of the history."""
        for trial in self._trials if self._told else ():
            losses, epochs = self._done[trial.name]
            trained = trial.trained
            self._done[trial.name] = len(trained.losses), len(trained.history)
            for row in trained.history[epochs:]:  # an epoch closes after its last step was told
                self._pass_on(trial, losses, {key: value for key, value in row.items() if key != "train loss"})
            for step, loss in enumerate(trained.losses[losses:], losses + 1):
                self._pass_on(trial, step, {"training loss": loss})

    def _pass_on(self, trial: Trial, step: int, values: Mapping[str, Any]) -> None:
        numbers = {key: float(v) for key, v in values.items() if isinstance(v, int | float) and math.isfinite(v)}
        for name, of, told in list(self._told):
            if of is trial and self._try(name, told.numbers, step, numbers) is _FAILED:
                self._told.remove((name, of, told))

    def close(self, interrupted: bool) -> None:
        """Tell the last numbers, and that training is over.

        Args:
            interrupted: whether it was cut short.
        """
        self.tell()
        for name, _, told in self._told:
            self._try(name, told.close, interrupted)

    def _try(self, name: str, tell: Callable[..., Any], *given: Any) -> Any:
        try:
            return tell(*given)
        except Exception as error:  # noqa: BLE001 - of a foreign package or server: training must not end by it
            self._say(f"note: the tracker {name} failed and is told nothing more ({type(error).__name__}: {error})")
            return _FAILED


def flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Write nested mappings as one, with dotted keys.

    Args:
        values: at any depth.
        before: what every key begins with.
    Returns:
        Value by key.
    Example:
        >>> flat({"a": {"b": 1}, "c": 2})
        {'a.b': 1, 'c': 2}
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{before}{key}.") if isinstance(value, Mapping) and value else {f"{before}{key}": value}
    return found
