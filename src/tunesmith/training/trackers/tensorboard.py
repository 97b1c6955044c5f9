"""TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tunesmith.core.errors import MissingDependency
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.trackers.base import Told, Tracker


class _Events(Told):
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Write a scalar for each."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self, interrupted: bool) -> None:
        """Flush and close the file."""
        self._writer.close()


@register("trackers")
class TensorBoard(Tracker):
    """Writes event files that `tensorboard --logdir` reads, a folder for each trial."""

    name: ClassVar[str] = "tensorboard"

    folder: str = setting("tensorboard", "Where to, beside the run's folder unless the path is absolute.")

    def check(self) -> None:
        """Import the writer."""
        _writer()

    def begin(self, output: Path, name: str, settings: Mapping[str, Any]) -> Told:
        """Open the file, and write the recipe as a text."""
        writer = _writer()(log_dir=str(output.parent / self.folder / output.name / name))
        writer.add_text("recipe", "```\n" + json.dumps(dict(settings), indent=2, default=str) + "\n```")
        return _Events(writer)


def _writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingDependency("tensorboard", "tensorboard", "training.trackers: tensorboard") from None
    return SummaryWriter
