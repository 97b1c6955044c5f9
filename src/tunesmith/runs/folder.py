"""The run folder: complete or absent. It is built beside its final place and renamed into it."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tunesmith.core.errors import CheckpointError

FINGERPRINT = "fingerprint.json"
BASE = "base"  # folder in the run of a model that was made for it


def check_free(output: Path, overwrite: bool) -> None:
    """Refuse, before any work, an output folder that is taken or cannot be made.

    Args:
        output: the run's folder.
        overwrite: whether an existing run may be replaced.
    Raises:
        CheckpointError: it exists, is not a run, or cannot be written.
    """
    if output.exists():
        if not overwrite:
            raise CheckpointError(
                f"the output folder {output} exists. Choose another with output=FOLDER, or replace it with --overwrite."
            )
        if not (output / FINGERPRINT).is_file() and any(output.iterdir() if output.is_dir() else [output]):
            raise CheckpointError(
                f"{output} exists and is not a run folder, so --overwrite does not replace it. Choose another output."
            )
    _staging(output).rmdir()


def check_new(output: Path) -> None:
    """Refuse, before any work, an output folder that exists or cannot be made.

    Args:
        output: the folder.
    Raises:
        CheckpointError: it exists or cannot be written.
    """
    if output.exists():
        raise CheckpointError(f"the output folder {output} exists. Choose another, or remove it first.")
    _staging(output).rmdir()


def _staging(output: Path) -> Path:
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise CheckpointError(
            f"the output folder {output} cannot be made: {error.strerror}. Choose a folder you can write to with "
            "output=FOLDER."
        ) from None


@contextlib.contextmanager
def staged(output: Path) -> Iterator[Path]:
    """Give a folder to write a run into; it takes its final name only if the block succeeds.

    Args:
        output: the final folder; an existing run is replaced.
    Returns:
        A temporary folder beside it.
    Raises:
        CheckpointError: it cannot be written; nothing is left behind and an older run stays.
    """
    staging = _staging(output)
    try:
        yield staging
        _flush(staging)
        os.chmod(staging, 0o755)
        old = None
        if output.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
            os.replace(output, old / "old")
        os.replace(staging, output)
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise CheckpointError(
            f"the run cannot be written to {output}: {error.strerror or error}. Nothing was left half-written."
        ) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
