"""A delta on disk: the folder layout of Hugging Face PEFT, for every method.

adapter_config.json        PEFT's keys where PEFT has the method
adapter_model.safetensors  tensors named base_model.model.<path in the model>
method.json                Tunesmith's own settings; absent in a folder that PEFT wrote
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tunesmith.core.errors import CheckpointError
from tunesmith.core.files import read_json, write_atomic, write_json
from tunesmith.core.registry import components, find
from tunesmith.methods.base import PREFIX, LayerMethod, Method, PeftFolder
from tunesmith.methods.legacy import read_pickled
from tunesmith.models.delta import Delta
from tunesmith.models.loading import Source, load_model, opening
from tunesmith.models.seams import Seams

CONFIG, WEIGHTS, METHOD = "adapter_config.json", "adapter_model.safetensors", "method.json"
LEGACY = "adapter_model.bin"  # of older versions of PEFT; read only where there are no safetensors
WRITING = ("CAUSAL_LM", "SEQ_2_SEQ_LM")  # task types of PEFT
EXTRAS = "reparameterisation.safetensors"  # what only continued training needs, where there is such a thing


def save_delta(folder: Path, method: Method, delta: Delta, base_name: str) -> None:
    """Write a delta folder; each file is whole or absent.

    Args:
        folder: made when absent.
        method: that attached the delta.
        delta: to save.
        base_name: name or folder of the base model, for PEFT users.
    """
    folder.mkdir(parents=True, exist_ok=True)
    extras = method.extras(delta)
    if extras:
        save_tensors(folder / EXTRAS, {name: tensor.contiguous() for name, tensor in extras.items()})
    else:  # another delta's would be read in the place of this one's tensors
        (folder / EXTRAS).unlink(missing_ok=True)
    config = {
        "peft_type": method.peft_type,
        "base_model_name_or_path": base_name,
        "task_type": task_type(delta.seams.model),
        "inference_mode": True,
        **method.to_peft(delta),
    }
    write_folder(folder, config, method.tensors(delta))
    write_json(folder / METHOD, method.saved(delta).describe())


def task_type(model: nn.Module) -> str:
    """Say which class PEFT wraps a model in.

    Args:
        model: of a delta.
    Returns:
        CAUSAL_LM or SEQ_2_SEQ_LM for a model with a language-model head, else FEATURE_EXTRACTION.
    """
    if not getattr(model, "can_generate", lambda: False)():
        return "FEATURE_EXTRACTION"
    return "SEQ_2_SEQ_LM" if getattr(model.config, "is_encoder_decoder", False) else "CAUSAL_LM"


def open_base(folder: PeftFolder, source: Source, device: torch.device) -> nn.Module:
    """Load the model that a delta belongs to, with a head or without as the delta's names ask for.

    Args:
        folder: the delta's.
        source: of the model.
        device: where to put it.
    Returns:
        The model.
    Raises:
        CheckpointError: the model cannot be read.
    """
    names = [name.removeprefix(PREFIX) for name in folder.tensors if name.startswith(PREFIX)]
    opens = opening(source, names, folder.config.get("task_type") in WRITING)
    return load_model(source, device, opens=opens)


def write_folder(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor], weights: str = WEIGHTS) -> None:
    """Write a config and its tensors, each file whole or absent.

    Args:
        folder: made when absent.
        config: content of adapter_config.json.
        tensors: on the CPU.
        weights: name of their file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / weights, {name: tensor.contiguous() for name, tensor in tensors.items()})
    write_json(folder / CONFIG, dict(sorted(config.items())))


def read_folder(folder: Path) -> PeftFolder:
    """Read a delta folder in PEFT's layout without a model.

    Args:
        folder: holds adapter_config.json and adapter_model.safetensors, or a legacy adapter_model.bin.
    Returns:
        Config and tensors.
    Raises:
        CheckpointError: missing or damaged.
        SecurityError: the legacy file holds more than tensors.
    """
    return PeftFolder(read_json(folder / CONFIG, dict), read_weights(folder), str(folder / CONFIG))


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
        SecurityError: a legacy adapter_model.bin holds more than tensors.
    """
    tensors = read_weights(folder)
    method = read_method(folder, tensors)
    source = folder / (EXTRAS if (folder / METHOD).is_file() and (folder / EXTRAS).is_file() else WEIGHTS)
    tensors = read_tensors(source) if source.name == EXTRAS else tensors
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(
                f"{source}: '{key}' holds numbers that are not finite. Restore the file or train again."
            )
    delta = _where_saved(folder, method.blank(), seams).attach(seams, name)
    try:
        method.load(delta, tensors, where=str(source))
    except CheckpointError:
        delta.detach()
        raise
    return method, delta


def _where_saved(folder: Path, method: Method, seams: Seams) -> Method:
    """Name the layers one by one where 'all-linear' means others here: a run may train without the model's pooler."""
    if not isinstance(method, LayerMethod) or not (folder / METHOD).is_file():
        return method
    saved = read_json(folder / CONFIG, dict).get("target_modules")
    if not isinstance(saved, list) or not all(path in seams.linear for path in saved):
        return method
    whole = method.whole(seams)
    here = [path for path in method.chosen(seams) if f"{path}.weight" not in whole]
    return method if set(here) == set(saved) else method.model_copy(update={"layers": tuple(saved)})


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
        described = dict(read_json(folder / METHOD, dict))
        if not isinstance(described.get("name"), str):
            raise CheckpointError(f"{folder / METHOD} is damaged: 'name' must be the name of a method.")
        return build_method(described.pop("name", ""), described, str(folder / METHOD))
    config = read_json(folder / CONFIG, dict)
    kind = config.get("peft_type")
    for method in components("methods").values():
        if kind is not None and method.peft_type == kind:
            found = read_weights(folder) if tensors is None else tensors
            try:
                read: Method = method.from_peft(PeftFolder(config, found, str(folder / CONFIG)))
            except ValidationError as error:
                raise CheckpointError(f"{folder / CONFIG}: {_problems(error)}. {kind} needs other values.") from None
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise CheckpointError(
                    f"{folder / CONFIG} is damaged: a key of it holds what {kind} cannot take ({error}). "
                    "Restore the file."
                ) from error
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
        raise CheckpointError(f"{where}: {_problems(error)}. It was written by another version.") from None
    return method


def _problems(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())


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


def read_weights(folder: Path, weights: str = WEIGHTS, legacy: str = LEGACY) -> dict[str, Tensor]:
    """Read a folder's tensors: the safetensors where they are there, else a pickle that holds tensors only.

    Args:
        folder: holds one of the two.
        weights: name of the safetensors file.
        legacy: name of the pickled file.
    Returns:
        Name to tensor.
    Raises:
        CheckpointError: missing or damaged.
        SecurityError: the pickle holds more than tensors.
    """
    pickled = not (folder / weights).is_file() and (folder / legacy).is_file()
    file = folder / (legacy if pickled else weights)
    found = read_pickled(file) if pickled else read_tensors(file)
    found = {name: tensor for name, tensor in found.items() if not name.endswith(".num_batches_tracked")}  # a counter
    for name, tensor in found.items():
        if not tensor.is_floating_point():
            raise CheckpointError(
                f"{file}: '{name}' holds {str(tensor.dtype).removeprefix('torch.')}, not floating point numbers, and "
                "only those are read. Convert the folder with the program that wrote it, or restore the file."
            )
    return found
