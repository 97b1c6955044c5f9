"""A worker of a search: takes trials over a line, trains them, and says what came out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from tunesmith.core.progress import Silence
from tunesmith.recipe.loading import load_recipe
from tunesmith.search.passes import Passes
from tunesmith.search.pools.base import Message

_STRIDE = 0.01  # share of a pass after which it is told how far it is


class _Telling(Silence):
    """Sends what would be printed to whoever speaks to the user."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        super().__init__()
        self._send = send

    def say(self, text: str) -> None:
        self._send({"said": text})


class _Work:
    """The trials of one worker.

    Args:
        order: what all trials have in common.
        receive: waits for the next message.
        send: sends one.
    """

    def __init__(self, order: Message, receive: Callable[[], Message], send: Callable[[Message], None]) -> None:
        self._order, self._receive, self._send, self._told = order, receive, send, 0.0
        runs = None if order["runs"] is None else Path(order["runs"])
        own = {"every_fold": order["every_fold"], "sharers": order["sharers"], "runs": runs}
        own["answers"] = None if order["answers"] is None else Path(order["answers"])
        self._passes = Passes(order["metric"], _Telling(send), self._tick, **own)

    def carry_out(self, message: Message) -> None:
        """Train trials, and send what came out."""
        words: dict[int, Sequence[str]] = {int(number): own for number, own in message["trials"]}
        common = self._order["overrides"]
        recipes = {number: load_recipe(self._order["recipe"], [*common, *own]) for number, own in words.items()}
        self._passes.validation, self._told = message["validation"], 0.0
        found = self._passes.carry_out(recipes, self._heard)
        outcomes = [[number, asdict(outcome)] for number, outcome in found.items()]
        self._send({"found": outcomes, "validation": self._passes.validation})

    def _heard(self, number: int, epoch: int, score: float) -> bool:
        self._send({"heard": [number, epoch, score]})
        return bool(self._receive()["stop"])

    def _tick(self, share: float) -> None:
        if share - self._told >= _STRIDE:
            self._told = share
            self._send({"share": share})


def serve(receive: Callable[[], Message], send: Callable[[Message], None]) -> None:
    """Work until the line is closed.

    Args:
        receive: waits for the next message: first the order, then trials.
        send: sends plain values.
    """
    work = _Work(receive(), receive, send)
    while True:
        work.carry_out(receive())
