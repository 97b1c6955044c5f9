"""States as JSON and tensors: nothing else can be written, so nothing that is read can run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunesmith.core.errors import CheckpointError

_KIND = "*"  # key that marks what JSON has no form for
_PLAIN = (str, int, bool, type(None))


def packed(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Turn a state into what JSON can hold; its tensors are put aside.

    Args:
        value: numbers, texts, tensors, arrays and containers of them, at any depth.
        tensors: gets every tensor under the name that stands in its place, contiguous, on the CPU.
    Returns:
        Plain values; numbers come back to the bit.
    Raises:
        TypeError: something else is in it.
    """
    if isinstance(value, Tensor):
        name = f"{len(tensors):06d}"
        tensors[name] = value.detach().cpu().contiguous()
        return {_KIND: "tensor", "name": name}
    if isinstance(value, np.ndarray):
        return {_KIND: "array", "dtype": str(value.dtype), "values": value.tolist()}
    if isinstance(value, Mapping):
        pairs = [[packed(key, tensors), packed(item, tensors)] for key, item in value.items()]
        texts = all(isinstance(key, str) and key != _KIND for key in value)
        return dict(pairs) if texts else {_KIND: "pairs", "values": pairs}
    if isinstance(value, list | tuple):
        items = [packed(item, tensors) for item in value]
        return items if isinstance(value, list) else {_KIND: "tuple", "values": items}
    if isinstance(value, float) and not math.isfinite(value):
        return {_KIND: "float", "value": str(value)}
    if isinstance(value, float) or type(value) in _PLAIN:
        return value
    raise TypeError(f"a checkpoint holds numbers, texts, tensors and containers of them, not {type(value).__name__}")


def unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Undo `packed`.

    Args:
        value: what it returned.
        tensors: what it put aside.
    Returns:
        The state.
    Raises:
        CheckpointError: a form that this version does not know, or a tensor that is not there.
    """
    if isinstance(value, list):
        return [unpacked(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get(_KIND)
    if kind is None:
        return {key: unpacked(item, tensors) for key, item in value.items()}
    if kind == "tensor" and value["name"] in tensors:
        return tensors[value["name"]]
    if kind == "array":
        return np.array(value["values"], dtype=value["dtype"])
    if kind == "pairs":
        return {unpacked(key, tensors): unpacked(item, tensors) for key, item in value["values"]}
    if kind == "tuple":
        return tuple(unpacked(item, tensors) for item in value["values"])
    if kind == "float":
        return float(value["value"])
    raise CheckpointError(f"a checkpoint with a value of kind '{kind}': it is damaged, or of another version.")


def random_state() -> dict[str, Any]:
    """Return where every shared stream of random numbers stands: Python's, NumPy's, torch's and its devices'.

    Returns:
        A state for `set_random_state`.
    """
    import random

    found = {"python": random.getstate(), "numpy": np.random.get_state(legacy=False), "torch": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        found["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        found["mps"] = torch.mps.get_rng_state()
    return found


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put every shared stream of random numbers where it stood; devices that are not here are left out.

    Args:
        state: from `random_state`.
    """
    import random

    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])
