"""Whether this process is one of several that a launcher such as torchrun started for one piece of work."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass
from typing import Any

from tunesmith.core.errors import RecipeError

_KEYS = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # by which launchers tell a process its place


@dataclass(frozen=True)
class Place:
    """A process among those started together.

    Args:
        rank: its number, from 0.
        count: of all. [count]
        local_rank: its number on its machine.
        local_count: of those on its machine. [count]
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1


def launched() -> Place:
    """Read this process's place from its environment.

    Returns:
        The place; that of a process alone where no launcher says otherwise.
    Raises:
        RecipeError: the environment holds what is no such place.
    """
    if not _by_launcher():
        return Place()
    rank, count = _number("RANK"), _number("WORLD_SIZE")
    return Place(rank, count, _number("LOCAL_RANK", rank), _number("LOCAL_WORLD_SIZE", count))


def _by_launcher() -> bool:
    return all(os.environ.get(key) for key in _KEYS)


def _number(key: str, default: int = 0) -> int:
    """Read a number that launchers set."""
    text = os.environ.get(key, str(default))
    try:
        return int(text)
    except ValueError:
        raise RecipeError(
            f"the environment's {key} is '{text}', and launchers such as torchrun set it to a whole number. Start with "
            f"one of them, or take {', '.join(_KEYS)} out of the environment."
        ) from None


_unheard: dict[int, Any] = {}  # signals that are ignored for now, and who heeded them before


def unhear(one: int, before: Any) -> None:
    """Ignore a signal until `heed_again`. Only the main thread can.

    Args:
        one: its number.
        before: who heeds it then.
    """
    signal.signal(one, signal.SIG_IGN)
    _unheard[one] = before


def speak_first() -> None:
    """Let a process that ends anyway say why: its launcher sends SIGTERM as soon as it misses another one."""
    main = threading.current_thread() is threading.main_thread()
    if _by_launcher() and main and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        unhear(signal.SIGTERM, signal.SIG_DFL)


def heed_again() -> None:
    """End `unhear`: whoever caught what went wrong may go on with other work."""
    while threading.current_thread() is threading.main_thread() and _unheard:
        signal.signal(*_unheard.popitem())
