"""Ctrl-C and SIGTERM while training runs: the step is finished first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from tunesmith.core.launch import launched, unhear

ENDED = 128 + signal.SIGTERM  # exit code of a process that was asked to end, as shells have it

_SIGNALS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}  # and who heeds them by default


@dataclass
class Asked:
    """What was asked from outside.

    Args:
        by: number of the signal; 0 while none came.
    """

    by: int = 0

    @property
    def to_end(self) -> bool:
        """Whether the process itself was asked to end, not only training."""
        return self.by == signal.SIGTERM


@contextmanager
def heeding(say: Callable[[str], None]) -> Iterator[Asked]:
    """Note Ctrl-C and SIGTERM inside the block instead of breaking off; a second Ctrl-C breaks off as ever.

    Of several processes each hears the first signal only, until `heed_again`: their launcher passes on what the
    terminal sent them already, and kills after a while. Nothing is changed outside of the main thread, and for a signal
    that the program has a handler of its own for.

    Args:
        say: told that the step is finished first.
    Returns:
        What was asked so far.
    """
    asked, before, several = Asked(), dict[signal.Signals, Any](), launched().count > 1

    def note(number: int, frame: FrameType | None) -> None:
        asked.by = number
        put_back()
        again = "; Ctrl-C again leaves at once" if number == signal.SIGINT and not several else ""
        say(f"note: {signal.Signals(number).name}: this step is finished first{again}.")

    def put_back() -> None:
        for one, handler in before.items():
            if several and asked.by:
                unhear(one, handler)
            else:
                signal.signal(one, handler)

    if threading.current_thread() is threading.main_thread():
        for one, usual in _SIGNALS.items():
            if signal.getsignal(one) == usual:
                before[one] = signal.signal(one, note)
    try:
        yield asked
    finally:
        put_back()
