"""Importing large packages without the searches for garbage that they set off."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Import large packages inside the block: their objects stay for good, and no search for garbage visits them.

    What a package defines lives as long as the process. Python's collector would go through all of it again and again
    while it grows, at later full collections, and once more at the end of the process. Objects that are there when the
    block ends are left out of collections from then on; what is made later is collected as ever.

    Returns:
        A context.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
