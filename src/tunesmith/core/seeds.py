"""One seed for everything that draws at random."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tunesmith.core.errors import RecipeError


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch.

    Args:
        seed: any whole number >= 0.
    """
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw torch's numbers on the CPU by a seed for a while; afterwards the stream goes on, and a GPU's is not touched.

    Args:
        seed: any whole number >= 0.
    Yields:
        Once.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU too
        yield


def check_seed(seed: Any) -> None:
    """Refuse what cannot seed a stream of numbers.

    Args:
        seed: as given.
    Raises:
        RecipeError: no whole number from 0 to 2^63 - 1.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise RecipeError(f"seed={seed!r}: a whole number from 0 to 2^63 - 1.")


def derived(seed: int, purpose: str) -> int:
    """Return a seed for one purpose, so that purposes do not share a stream of numbers.

    Args:
        seed: the run's seed.
        purpose: a word, for example "split" or "dropout".
    Returns:
        A whole number below 2**32, the same on every machine.
    Example:
        >>> derived(0, "split") == derived(0, "split") != derived(0, "order")
        True
    """
    return zlib.crc32(f"{seed}:{purpose}".encode())
