"""How many threads compute: no more than the processors that this process may use."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")  # where a container finds the limits of its own control group
_CHOSEN = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # by which users set the number themselves

_log = logging.getLogger("tunesmith")


def allowed_processors() -> int | None:
    """Return how many processors' time the control group gives this process, rounded up; None for any. [count]"""
    try:
        if (_GROUPS / "cpu.max").exists():
            quota, period = (_GROUPS / "cpu.max").read_text().split()
        else:
            quota, period = ((_GROUPS / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return max(1, math.ceil(int(quota) / int(period))) if int(quota) > 0 else None
    except (OSError, ValueError):  # no limit: no file, "max", or -1
        return None


def settle_threads() -> None:
    """Let torch compute with at most as many threads as there are processors for.

    torch counts the processors of the machine. In a container that may use two of 64, 32 threads would wait for each
    other most of the time. A number that the environment sets stays.
    """
    allowed = allowed_processors()
    if allowed is None or any(os.environ.get(name) for name in _CHOSEN):
        return
    import torch

    threads = torch.get_num_threads()
    if threads > allowed:
        torch.set_num_threads(allowed)
        _log.warning(
            "computing with %d threads instead of %d, as the control group gives this process the time of %d "
            "processors. OMP_NUM_THREADS sets another number.", allowed, threads, allowed,
        )  # fmt: skip
