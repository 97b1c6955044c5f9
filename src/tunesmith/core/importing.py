"""Importing large packages without the searches for garbage that they set off."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_alone = False  # whether this process does nothing but our work


def take_the_process() -> None:
    """Say that this process is the command line's: what is imported in it may stay out of collections for good."""
    global _alone
    _alone = True


@contextmanager
def uncollected() -> Iterator[None]:
    """Import large packages inside the block without searches for garbage among what they define.

    What a package defines lives as long as the process. Python's collector would go through all of it again and again
    while it grows, at later full collections, and once more at the end of the process. In a process of the command line
    objects that are there when the block ends are left out of collections from then on; elsewhere they may be a user's,
    so the collector only waits until the block ends.

    Returns:
        A context.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if _alone:
            gc.freeze()
        if enabled:
            gc.enable()
