"""One seed for everything that draws at random."""

from __future__ import annotations

import random
import zlib

import numpy as np


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch.

    Args:
        seed: any whole number >= 0.
    """
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


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
