"""Which processes search in a folder: each holds a lock on a file of its own, which the system lets go when it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROCESSES = "processes"  # folder of the study with a file for each process
_LAST = "last"  # file that the one holds which carries the best trial out


class Presence:
    """This process among those that search in a folder, whichever machine they run on.

    Where the file system has no locks nobody sees anybody, as `locks` says.

    Args:
        folder: of the study, which is there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._place = folder, folder / PROCESSES
        self.name = ""
        self._held: int | None = None
        self.locks = _has_locks(folder)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let no other process into such a block meanwhile; it waits for them."""
        with _holding(self._folder if self.locks else None, os.O_RDONLY):
            yield

    @contextmanager
    def last(self) -> Iterator[None]:
        """Let one process after the other through a block that takes long."""
        with _holding(self._place / _LAST if self.locks else None, os.O_RDWR | os.O_CREAT):
            yield

    def enter(self) -> None:
        """Be seen by others from now on; call it alone."""
        self.name = uuid.uuid4().hex[:12]
        if not self.locks:
            return
        self._place.mkdir(exist_ok=True)
        self._clear()
        self._held = os.open(self._place / self.name, os.O_RDWR | os.O_CREAT)
        fcntl.flock(self._held, fcntl.LOCK_EX)

    def leave(self) -> None:
        """Be gone; the last one takes the folder of the files away."""
        if self._held is None:
            return
        (self._place / self.name).unlink(missing_ok=True)
        os.close(self._held)
        self._held = None
        self._clear()
        if not self._names():
            (self._place / _LAST).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self._place.rmdir()

    def others(self) -> list[str]:
        """Name the other processes that search in the folder now."""
        return [name for name in self._names() if name != self.name and self.lives(name)]

    def lives(self, name: str) -> bool:
        """Say whether a process searches in the folder now.

        Args:
            name: its own.
        """
        if name == self.name:
            return True
        try:
            found = os.open(self._place / name, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(found)
        return False

    def _clear(self) -> None:
        """Take the files of processes away that were killed."""
        for name in self._names():
            if not self.lives(name):
                (self._place / name).unlink(missing_ok=True)

    def _names(self) -> list[str]:
        return sorted(one.name for one in self._place.iterdir() if one.name != _LAST) if self._place.is_dir() else []


def _has_locks(folder: Path) -> bool:
    found = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(found, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(found)
    return True


@contextmanager
def _holding(path: Path | None, flags: int) -> Iterator[None]:
    if path is None:
        yield
        return
    found = os.open(path, flags)
    try:
        fcntl.flock(found, fcntl.LOCK_EX)
        yield
    finally:
        os.close(found)
