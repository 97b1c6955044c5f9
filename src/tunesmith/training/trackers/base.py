"""What a tracker is: it is told numbers while a run trains. The run folder holds them in any case."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tunesmith.core.settings import Component


class Told:
    """Where one trial's numbers go."""

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Take numbers.

        Args:
            step: they are of, 1 for the first.
            values: by name, all finite.
        """
        raise NotImplementedError

    def close(self, interrupted: bool) -> None:
        """Take the end of training.

        Args:
            interrupted: whether it was cut short.
        """
        raise NotImplementedError


class Tracker(Component):
    """Base of every tracker. Its file registers one subclass with `@register("trackers")`."""

    name: ClassVar[str]

    def check(self) -> None:
        """Refuse, before any work, what cannot be tracked.

        Raises:
            MissingDependency: the package is not installed.
        """
        raise NotImplementedError

    def begin(self, output: Path, name: str, settings: Mapping[str, Any]) -> Told:
        """Begin with a trial.

        Args:
            output: folder of the run.
            name: of the trial.
            settings: of the recipe, by dotted key.
        Returns:
            What is told.
        """
        raise NotImplementedError
