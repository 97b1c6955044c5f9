"""How much memory this process holds and held at most."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path


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


def restart_peak() -> None:
    """Begin a new peak, where the system allows it (Linux); elsewhere the peak stays the process's."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _status(field: str) -> int:
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0
