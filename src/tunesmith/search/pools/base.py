"""What a pool is: where the workers of a search run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

from tunesmith.core.settings import Component

Message = Mapping[str, Any]
# Told every message of a worker, and None once it has ended; called from any thread.
Hear = Callable[[Message | None], None]


class Line(Protocol):
    """The line to one worker."""

    def send(self, message: Message) -> None:
        """Send a message; one to a worker that has ended is lost.

        Args:
            message: plain values.
        """

    def close(self) -> str:
        """End the worker, at once.

        Returns:
            How it ended where it ended by itself, in words; empty otherwise.
        """


class Pool(Component):
    """Base of every pool; its file registers one subclass with `@register("pools")`.

    A worker runs `tunesmith.search.serving.serve` with the messages of its line, and ends with whoever started it.
    """

    name: ClassVar[str]
    remote: ClassVar[bool] = False  # whether a single worker is another place than the process that searches

    def check(self) -> None:
        """Refuse a pool that cannot be used here, before anything is searched.

        Raises:
            MissingDependency: what it runs on is not installed.
        """

    def start(self, threads: int, hear: Hear) -> Line:
        """Start a worker.

        Args:
            threads: that it computes with. [count]
            hear: told what the worker says.
        Returns:
            The line to it.
        """
        raise NotImplementedError
