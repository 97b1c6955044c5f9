"""Files that are whole or absent: written under a temporary name, flushed, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunesmith.core.errors import CheckpointError

COMMON_ENCODINGS = "Common: utf-8, utf-16, latin-1, gb18030."


def write_atomic(path: Path, write: Callable[[Path], None]) -> None:
    """Write one file so that a crash or a full disk leaves the old file or none, never half a file.

    Args:
        path: the final name; its folder must exist.
        write: called with the temporary name to write to.
    Raises:
        CheckpointError: the folder cannot be written or the disk is full; nothing is left behind.
    """
    temporary: Path | None = None
    try:
        name = path.parent / f".{path.name}.{secrets.token_hex(4)}"
        made = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)  # less where the user's umask says so
        temporary, mode = name, os.fstat(made).st_mode & 0o777
        os.close(made)
        write(temporary)
        os.chmod(temporary, mode)  # safetensors puts a file of its own there, which nobody else may read
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise CheckpointError(
            f"cannot write {path}: {error.strerror or error}. Nothing was half-written. "
            "Free space or choose another folder with output=FOLDER."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, UTF-8.

    Args:
        path: the final name.
        text: its content.
    """
    write_atomic(path, lambda temporary: _write_bytes(temporary, text.encode("utf-8")))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, two spaces of indent.

    Args:
        path: the final name.
        value: anything json can write; NaN becomes null.
    """
    write_text(path, json.dumps(finite(value), indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, kind: type = object) -> Any:
    """Read a JSON file of a run.

    Args:
        path: the file.
        kind: what it must hold, dict or list; anything when object.
    Returns:
        Its value.
    Raises:
        CheckpointError: missing or damaged, or it holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        inside = sorted(item.parent.name for item in path.parent.glob(f"*/{path.name}"))
        hint = f" Did you mean {path.parent / inside[0]}?" if inside else ""
        raise CheckpointError(
            f"{path} is missing: {path.parent} is not a complete run or delta folder.{hint}"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}. Train again or restore the file.") from None
    if not isinstance(value, kind):
        wanted = "an object in braces" if kind is dict else "a list"
        raise CheckpointError(f"{path} is damaged: it must hold {wanted}. Train again or restore the file.")
    return value


def finite(value: Any) -> Any:
    """Replace NaN and infinities, which JSON does not know, by None, at any depth.

    Args:
        value: plain Python values.
    Returns:
        The same with None in their place.
    """
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def sha256_of(paths: list[Path]) -> str:
    """Hash the content of files, in the order given.

    Args:
        paths: files that exist.
    Returns:
        A hexadecimal SHA-256.
    """
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def hash_of(value: Any) -> str:
    """Hash a plain value.

    Args:
        value: what json can write.
    Returns:
        "sha256:" and a hexadecimal number.
    """
    return "sha256:" + hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()


def _write_bytes(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk.

    Args:
        folder: that exists.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cache_folder(kind: str) -> Path:
    """Return where files that can be made again are kept: in TUNESMITH_CACHE, else in the user's cache folder.

    Args:
        kind: of files, a folder of its own.
    Returns:
        The folder, which need not be there.
    """
    chosen = os.environ.get("TUNESMITH_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(chosen) if chosen else home / "tunesmith") / kind


class Scratch:
    """A folder that lives as long as the object."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="tunesmith-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def is_encoding(name: str) -> bool:
    """Say whether text can be read in an encoding.

    Args:
        name: of it.
    Returns:
        Whether Python knows it, and it is one of text.
    """
    try:
        "".encode(name)
    except (LookupError, ValueError):
        return False
    return True
