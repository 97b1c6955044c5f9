"""Read tensors, and nothing else, from the pickled weights that older versions of PEFT wrote.

Such a file is a zip of raw numbers and one pickle that says which tensor each belongs to. A pickle can name any
function of any package and call it. So its words are read first, without carrying them out, and a single name outside
the few that tensors need is a refusal; only then does torch's own restricted reader open it.
"""

from __future__ import annotations

import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunesmith.core.errors import CheckpointError, SecurityError

_KINDS = ("Float", "Double", "Half", "BFloat16", "Char", "Byte", "Short", "Int", "Long", "Bool")
_NAMES = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {kind}Storage" for kind in _KINDS),
}
_CALLS = {"STACK_GLOBAL", "EXT1", "EXT2", "EXT4", "INST", "OBJ", "PERSID"}  # torch writes none of them
_MEMBERS = 1_000_000
_WORDS_BYTES = 256 << 20  # of the pickle alone, which holds names and shapes
_MAGIC = b"PK\x03\x04"


def read_pickled(path: Path) -> dict[str, Tensor]:
    """Read a file that torch.save wrote and that holds a dictionary of tensors.

    Args:
        path: the file.
    Returns:
        Name to tensor, on the CPU.
    Raises:
        SecurityError: it holds anything but tensors; nothing of it was carried out.
        CheckpointError: damaged.
    """
    try:
        with open(path, "rb") as file:
            begin = file.read(len(_MAGIC))
        if begin and begin != _MAGIC and not _MAGIC.startswith(begin):
            raise SecurityError(
                f"{path} is a bare pickle, not the zip of tensors that torch.save has written since version 1.6. It "
                "can run code when opened, so it is refused. Save the weights as safetensors where you trust them."
            )
        _check(path)
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise SecurityError(f"{path} holds more than tensors, so it is refused: {_first(error)}") from None
    except (zipfile.BadZipFile, OSError, RuntimeError, EOFError, KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f"{path} is damaged ({_first(error)}). Restore the file or save it again.") from None
    return _tensors(found, path)


def _check(path: Path) -> None:
    """Look at the zip and at the pickle's words before anything opens them."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        for member in members:
            parts = member.filename.split("/")
            if "\\" in member.filename or "" in parts or ".." in parts or len(parts) < 2:
                raise SecurityError(f"{path} has a member called {member.filename!r}, which torch.save does not write.")
            if member.compress_type != zipfile.ZIP_STORED:
                raise SecurityError(f"{path}: {member.filename} is compressed; torch.save never does that.")
        if len(members) > _MEMBERS or sum(member.file_size for member in members) > path.stat().st_size:
            raise SecurityError(f"{path} claims to hold more than the file is long, so it is refused.")
        words = [member for member in members if member.filename.endswith("/data.pkl")]
        if len(words) != 1 or len({member.filename.split("/")[0] for member in members}) != 1:
            raise CheckpointError(f"{path} is damaged: it is a zip, but not one that torch.save wrote.")
        if words[0].file_size > _WORDS_BYTES:
            raise SecurityError(f"{path}: {words[0].filename} is {words[0].file_size} bytes long, too much for names.")
        _check_words(archive.read(words[0]), path)


def _check_words(words: bytes, path: Path) -> None:
    """Go through a pickle's words; none is carried out."""
    texts: list[str] = []
    strange = ""
    for opcode, value, _ in pickletools.genops(words):
        if isinstance(value, str) and opcode.name != "GLOBAL":
            texts.append(value)
        name = " ".join(texts[-2:]) if opcode.name == "STACK_GLOBAL" else str(value)
        if opcode.name in ("GLOBAL", "STACK_GLOBAL") and name not in _NAMES:
            raise _forbidden(path, name.replace(" ", "."))
        strange = opcode.name if opcode.name in _CALLS else strange
    if strange:  # a name put together on the stack may be another than it seems
        raise SecurityError(f"{path} is pickled in a way ({strange}) that torch.save does not use, so it is refused.")


def _forbidden(path: Path, name: str) -> SecurityError:
    return SecurityError(
        f"{path} wants to call '{name}', which no tensor needs, so it is refused and nothing was run. If you trust its "
        "source, load it there and save the weights as safetensors."
    )


def _tensors(found: Any, path: Path) -> dict[str, Tensor]:
    """Check that all of it is named tensors no larger than the file."""
    if not isinstance(found, dict):
        raise SecurityError(f"{path} holds a {type(found).__name__}, not a dictionary of tensors, so it is refused.")
    size = path.stat().st_size
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise SecurityError(f"{path}: {name!r} is a {type(value).__name__}, not a tensor, so it is refused.")
        if value.numel() * value.element_size() > size:
            raise SecurityError(f"{path}: '{name}' claims {tuple(value.shape)}, more than the file is long.")
    return {name: value.detach().clone() for name, value in found.items()}


def _first(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"
