"""A progress bar with a rate and a time left; silent when nobody watches."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol


class Bar(Protocol):
    """What a stage tells while it runs."""

    def __call__(self, done: int, note: str = "") -> None:
        """Say that `done` more units are done, with a short note such as the loss."""


class Progress:
    """Bars on standard error, one per stage.

    Args:
        shown: False keeps silent; None shows bars on a terminal only.
    """

    def __init__(self, shown: bool | None = None) -> None:
        self.shown = sys.stderr.isatty() if shown is None else shown

    @contextmanager
    def keeping(self, what: str, folder: Path) -> Iterator[None]:
        """Say where what was done is kept, where the user interrupts the block.

        Args:
            what: is kept, in the plural.
            folder: it is kept in, which `--resume` goes on from.
        """
        try:
            yield
        except KeyboardInterrupt:
            self.say(f"{what} so far are in {folder}; go on with the same words and --resume")
            raise

    @contextmanager
    def stage(self, name: str, total: int | None, unit: str = "examples") -> Iterator[Bar]:
        """Show one stage.

        Args:
            name: what is being done.
            total: units of work; None where nobody knows.
            unit: what a unit is, in the plural.
        Returns:
            A function to call with the units just done.
        """
        if not self.shown:
            yield _silent
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.text import Text

        class Rate(ProgressColumn):
            def render(self, task: Any) -> Text:
                return Text(f"{task.finished_speed or task.speed or 0:,.0f} {unit}/s")

        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(),
            TextColumn("{task.fields[note]}"), TextColumn("left"), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task(name, total=total, note="")

            def advance(done: int, note: str = "") -> None:
                fields: dict[str, Any] = {"note": note} if note else {}
                bars.update(task, advance=done, **fields)

            yield advance

    def say(self, text: str) -> None:
        """Print a line for the user, on standard error.

        Args:
            text: the line.
        """
        print(text, file=sys.stderr, flush=True)


class Silence(Progress):
    """Says nothing, as a process does whose work another one tells of."""

    def __init__(self) -> None:
        super().__init__(shown=False)

    def say(self, text: str) -> None:
        """Keep silent."""


def _silent(done: int, note: str = "") -> None:
    return
