"""How much memory this process holds and held at most."""

from __future__ import annotations

import ctypes
import re
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_PLENTY = 2**62  # where a system does not say how much is free
_GROUPS = Path("/sys/fs/cgroup")  # where a container finds the limits of its own control group


def resident_bytes() -> int:
    """Return the memory this process holds now. [bytes]"""
    return _status("VmRSS") or peak_bytes()


def peak_bytes() -> int:
    """Return the most memory this process held since the last `restart_peak`, or ever. [bytes]"""
    measured = _status("VmHWM")
    if measured:
        return measured
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def available_bytes(device: torch.device) -> int:
    """Return how much more memory this process may take on a device before it has to stop.

    Args:
        device: of the model.
    Returns:
        What is free on a GPU; else of the machine, or of this process's control group where that is less. [bytes]
    """
    if device.type == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    found = _read("/proc/meminfo", r"^MemAvailable:\s+(\d+) kB")
    free = found * 1024 if found else _PLENTY
    return min(free, _left_in_group())


def give_back() -> None:
    """Give free memory inside the heap back to the system, where its C library can (glibc); it costs a few ms."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def restart_peak() -> None:
    """Begin a new peak, where the system allows it (Linux); elsewhere the peak stays the process's."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _left_in_group() -> int:
    """What this process's control group leaves it; pages of files that were read are given up when memory is short."""
    if (_GROUPS / "memory.max").exists():
        folder, names, pages = _GROUPS, ("memory.max", "memory.current"), "inactive_file"
    else:
        names, pages = ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_inactive_file"
        folder = _GROUPS / "memory"
    limit, used = (_read(folder / name, r"^(\d+)$") for name in names)
    kept = _read(folder / "memory.stat", rf"^{pages} (\d+)$")
    return max(0, limit - max(0, used - kept)) if limit else _PLENTY


def _status(field: str) -> int:
    return _read("/proc/self/status", rf"^{field}:\s+(\d+) kB") * 1024


def _read(path: str | Path, pattern: str) -> int:
    """Read a number from a file of the system; 0 where it has none."""
    try:
        text = Path(path).read_text()
    except OSError:
        return 0
    found = re.search(pattern, text, re.MULTILINE)
    return int(found.group(1)) if found else 0
