"""A delta on disk: the folder layout of Hugging Face PEFT, for every method.

adapter_config.json        PEFT's keys where PEFT has the method
adapter_model.safetensors  tensors named base_model.model.<path in the model>
method.json                Tunesmith's own settings; absent in a folder that PEFT wrote
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tunesmith.core.errors import CheckpointError, SecurityError
from tunesmith.core.files import read_json, write_atomic, write_json
from tunesmith.core.registry import components, find
from tunesmith.methods.base import Method, PeftFolder
from tunesmith.models.delta import Delta
from tunesmith.models.seams import Seams

CONFIG, WEIGHTS, METHOD = "adapter_config.json", "adapter_model.safetensors", "method.json"


def save_delta(folder: Path, method: Method, delta: Delta, base_name: str) -> None:
    """Write a delta folder; each file is whole or absent.

    Args:
        folder: made when absent.
        method: that attached the delta.
        delta: to save.
        base_name: name or folder of the base model, for PEFT users.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in method.tensors(delta).items()}
    save_tensors(folder / WEIGHTS, tensors)
    config = {
        "peft_type": method.peft_type,
        "base_model_name_or_path": base_name,
        "task_type": "FEATURE_EXTRACTION",
        "inference_mode": True,
        **method.to_peft(delta),
    }
    write_json(folder / CONFIG, dict(sorted(config.items())))
    write_json(folder / METHOD, method.describe())


def load_delta(folder: Path, seams: Seams, name: str = "default") -> tuple[Method, Delta]:
    """Attach the delta of a folder that Tunesmith or PEFT wrote.

    Args:
        folder: holds adapter_config.json and adapter_model.safetensors.
        seams: of the model it was made for.
        name: of the delta.
    Returns:
        The method and the attached delta.
    Raises:
        CheckpointError: missing, damaged, foreign or not supported.
        SecurityError: the weights are pickled.
    """
    tensors = _read_weights(folder)
    method = read_method(folder, tensors)
    delta = method.attach(seams, name)
    try:
        method.load(delta, tensors, where=str(folder / WEIGHTS))
    except CheckpointError:
        delta.detach()
        raise
    return method, delta


def read_method(folder: Path, tensors: dict[str, Tensor] | None = None) -> Method:
    """Read which method, with which settings, a delta folder holds.

    Args:
        folder: as for `load_delta`.
        tensors: of its weights file; read when None.
    Returns:
        The method.
    Raises:
        CheckpointError: missing, damaged or not supported.
    """
    if (folder / METHOD).is_file():
        described = dict(read_json(folder / METHOD))
        return build_method(described.pop("name", ""), described, str(folder / METHOD))
    config = read_json(folder / CONFIG)
    kind = config.get("peft_type")
    for method in components("methods").values():
        if kind is not None and method.peft_type == kind:
            found = _read_weights(folder) if tensors is None else tensors
            read: Method = method.from_peft(PeftFolder(config, found, str(folder / CONFIG)))
            return read
    known = sorted(method.peft_type for method in components("methods").values() if method.peft_type)
    raise CheckpointError(f"{folder / CONFIG}: peft_type '{kind}' is not supported. Supported: {', '.join(known)}")


def build_method(name: str, values: dict[str, Any], where: str) -> Method:
    """Build a method from saved settings.

    Args:
        name: of the method.
        values: its settings.
        where: their source, for errors.
    Returns:
        The method.
    Raises:
        CheckpointError: settings this version does not know.
    """
    try:
        method: Method = find("methods", name)(**values)
    except ValidationError as error:
        problems = "; ".join(f"{item['loc'][0]}: {item['msg']}" for item in error.errors())
        raise CheckpointError(f"{where}: {problems}. It was written by another version.") from None
    return method


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file atomically.

    Args:
        path: the final name.
        tensors: contiguous, on the CPU.
    """

    def write(temporary: Path) -> None:
        try:
            save_file(tensors, temporary, metadata={"format": "pt"})
        except SafetensorError as error:  # it wraps the operating system's error
            raise OSError(str(error)) from error

    write_atomic(path, write)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Args:
        path: the file.
    Returns:
        Name to tensor.
    Raises:
        CheckpointError: missing or damaged.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: {path.parent} is not complete. Train again or restore it.")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error}). Train again or restore the file.") from None


def _read_weights(folder: Path) -> dict[str, Tensor]:
    if not (folder / WEIGHTS).is_file() and (folder / "adapter_model.bin").is_file():
        raise SecurityError(
            f"{folder} holds its weights only as adapter_model.bin. A pickle can run code when opened, so it is "
            "refused. Load it with PEFT where you trust it and save it again: PEFT then writes safetensors."
        )
    return read_tensors(folder / WEIGHTS)
