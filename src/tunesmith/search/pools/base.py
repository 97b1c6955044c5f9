"""What a pool is: where the workers of a search run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

import torch

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

    def check(self, workers: int) -> None:
        """Refuse a pool that cannot be used here, before anything is searched.

        Args:
            workers: that it is to hold. [count]
        Raises:
            MissingDependency: what it runs on is not installed.
            RecipeError: it has no room for so many.
        """

    def threads(self, workers: int) -> int:
        """Return how many threads each worker computes with.

        Args:
            workers: that the pool holds. [count]
        Returns:
            The threads of this process shared out, at least one. [count]
        """
        return max(1, torch.get_num_threads() // workers)

    def start(self, threads: int, hear: Hear) -> Line:
        """Start a worker.

        Args:
            threads: that it computes with. [count]
            hear: told what the worker says.
        Returns:
            The line to it.
        """
        raise NotImplementedError
