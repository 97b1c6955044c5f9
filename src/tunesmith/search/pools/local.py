"""Workers that are processes of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar

import tunesmith
from tunesmith.core.registry import register
from tunesmith.search.pools.base import Hear, Message, Pool

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_MOMENT = 5.0  # seconds that a worker has to end when it is asked to


class _Process:
    """A line of JSON per message, over the process's standard input and output.

    The process is in a session of its own, so that Ctrl-C reaches whoever started it alone, who ends it.
    """

    def __init__(self, threads: int, hear: Hear) -> None:
        path = os.pathsep.join([str(Path(tunesmith.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        own = {**os.environ, **dict.fromkeys(_THREADS, str(threads)), "PYTHONPATH": path.rstrip(os.pathsep)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tunesmith.search.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=own,
            text=True, encoding="utf-8", start_new_session=True,
        )  # fmt: skip
        threading.Thread(target=self._read, args=(hear,), daemon=True).start()

    def _read(self, hear: Hear) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with contextlib.suppress(ValueError):  # a line that the end of the process cut short
                hear(json.loads(line))
        hear(None)

    def send(self, message: Message) -> None:
        """Write a line."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended, which its output tells
            self._process.stdin.write(json.dumps(message, default=str) + "\n")
            self._process.stdin.flush()

    def close(self) -> str:
        """Terminate the process; kill it where it does not end."""
        process = self._process
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2 if process.poll() is None else 0)
        code = process.poll()
        if code is None:
            process.terminate()
            try:
                process.wait(_MOMENT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        with contextlib.suppress(OSError):
            assert process.stdin is not None
            process.stdin.close()
        if code is None:
            return ""
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


@register("pools")
class Local(Pool):
    """Processes of this machine, which share its threads and its memory."""

    name: ClassVar[str] = "local"

    def start(self, threads: int, hear: Hear) -> _Process:
        """Start a process."""
        return _Process(threads, hear)
