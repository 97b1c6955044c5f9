"""Checkpoints: everything that training needs to go on as if it had never stopped.

    checkpoints/
      step-00000120/
        manifest.json        the form's number, the step, and the hashes of the other files
        facts.json           what was trained: recipe, data, base model, versions
        state.json           numbers, texts, and which tensor stands where
        tensors.safetensors
        kept.safetensors     what frozen layers gave; the same file as the older checkpoint's while it grows no more
      step-00000100/

A checkpoint takes its name when it is whole and on the disk; the last two are kept.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tunesmith.core.errors import CheckpointError
from tunesmith.core.files import flush_folder, read_json, sha256_of, write_json, write_text
from tunesmith.methods.store import read_tensors, save_tensors
from tunesmith.training.packing import packed, unpacked

FOLDER = "checkpoints"  # in the run folder
_FORM = 1  # of the files; another number is refused
_HELD = 2  # checkpoints that stay
_PREFIX = "step-"
_MANIFEST, _FACTS, _STATE, _TENSORS, _ROWS = (
    "manifest.json", "facts.json", "state.json", "tensors.safetensors", "kept.safetensors"
)  # fmt: skip
_SECONDS = 10.0  # fewest between checkpoints of epochs, so that short epochs are not spent on writing


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read.

    Args:
        folder: of it.
        step: after which it was made.
        facts: what was trained.
        state: of the loop.
        rows: what frozen layers gave, by name; empty where nothing was kept.
    """

    folder: Path
    step: int
    facts: dict[str, Any]
    state: dict[str, Any]
    rows: dict[str, Tensor]


class Checkpoints:
    """The checkpoints of one run: written in turn, the last two kept.

    Args:
        folder: of the run; made when the first checkpoint is written.
        facts: what is trained, for comparison when training goes on; plain values.
        every: steps between two; None for one per epoch, at most one in ten seconds. [count]
        say: told what the user should know.
    """

    def __init__(
        self,
        folder: Path,
        facts: Mapping[str, Any],
        every: int | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.folder = folder / FOLDER
        self._facts, self._every, self._say = dict(facts), every, say
        self._last = time.monotonic()  # no clock of the day: it may be moved back
        self._rows: tuple[int, Path] | None = None  # version and file of what frozen layers gave
        self.written: int | None = None  # step of the newest one

    def due(self, step: int, epoch_ended: bool) -> bool:
        """Say whether a checkpoint should be made now.

        Args:
            step: just made.
            epoch_ended: whether an epoch ended with it.
        """
        if self._every is not None:
            return step % self._every == 0
        return epoch_ended and time.monotonic() - self._last >= _SECONDS

    def save(self, step: int, state: Mapping[str, Any], rows: Rows | None = None) -> None:
        """Write a checkpoint, and drop the third last.

        Args:
            step: it was made after.
            state: of the loop.
            rows: what frozen layers gave.
        Raises:
            CheckpointError: it cannot be written; the ones before stay.
        """
        if self.written is not None and not self.folder.is_dir():
            self._say(f"note: {self.folder} was removed while training ran; it is made again.")
            self._rows = None
        final = self.folder / f"{_PREFIX}{step:08d}"
        new = self.folder / f".new-{step:08d}"
        try:
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
            self._write(new, step, state, rows)
            flush_folder(new)
            drop(final)
            os.replace(new, final)
            flush_folder(self.folder)
            if self._rows is not None:
                self._rows = self._rows[0], final / _ROWS
        except (OSError, CheckpointError) as error:
            shutil.rmtree(new, ignore_errors=True)
            with suppress(OSError):  # folders that were made for it, where they are empty
                self.folder.rmdir()
                self.folder.parent.rmdir()
            raise CheckpointError(self._worded(step, error)) from error
        self._last, self.written = time.monotonic(), step
        for folder in found(self.folder)[_HELD:]:
            drop(folder)

    def _write(self, folder: Path, step: int, state: Mapping[str, Any], rows: Rows | None) -> None:
        tensors: dict[str, Tensor] = {}
        plain = packed(state, tensors)
        save_tensors(folder / _TENSORS, _apart(tensors))
        write_text(folder / _STATE, json.dumps(plain))
        write_json(folder / _FACTS, self._facts)
        names = [_TENSORS, _STATE, _FACTS]
        if rows is not None:
            self._write_rows(folder, rows)
            names.append(_ROWS)
        hashes = {name: sha256_of([folder / name]) for name in names}
        write_json(folder / _MANIFEST, {"form": _FORM, "step": step, "sha256": hashes})

    def _write_rows(self, folder: Path, rows: Rows) -> None:
        """Link the older checkpoint's file while nothing was added to it; a file system without links gets a copy."""
        if self._rows is not None and self._rows[0] == rows.version and self._rows[1].is_file():
            with suppress(OSError):
                os.link(self._rows[1], folder / _ROWS)
                return
        save_tensors(folder / _ROWS, _apart(rows.tensors()))
        self._rows = rows.version, folder / _ROWS

    def _worded(self, step: int, error: OSError | CheckpointError) -> str:
        cause = error if isinstance(error, OSError) else error.__cause__
        why = (cause.strerror or cause) if isinstance(cause, OSError) else error
        left = [int(folder.name.removeprefix(_PREFIX)) for folder in found(self.folder)]
        kept = f"The checkpoint of step {left[0]} is whole" if left else "There is no earlier one"
        return (
            f"the checkpoint of step {step} cannot be written to {self.folder}: {why}. {kept}. Free space there and go "
            "on with --resume."
        )

    def begin(self, checkpoint: Checkpoint | None) -> None:
        """Go on from a checkpoint; without one, remove those of an older run, and what a crash left.

        Args:
            checkpoint: from this folder.
        """
        if checkpoint is None:
            drop(self.folder)
            return
        for left in self.folder.glob(".*"):
            shutil.rmtree(left, ignore_errors=True)
        self.written = checkpoint.step


class Rows:
    """What frozen layers gave, as a checkpoint keeps it.

    Args:
        version: changes whenever something is added. [count]
        tensors: gives them.
    """

    def __init__(self, version: int, tensors: Callable[[], dict[str, Tensor]]) -> None:
        self.version, self.tensors = version, tensors


def found(folder: Path) -> list[Path]:
    """Find the checkpoints of a folder by the steps in their names; when they were written plays no part.

    Args:
        folder: of checkpoints.
    Returns:
        Their folders, the newest first; none where the folder is not there.
    """
    if not folder.is_dir():
        return []
    named = [one for one in folder.iterdir() if one.name.removeprefix(_PREFIX).isdigit()]
    return sorted(named, key=lambda one: int(one.name.removeprefix(_PREFIX)), reverse=True)


def newest(folder: Path, say: Callable[[str], None] = print) -> Checkpoint | None:
    """Read the newest whole checkpoint; one that is damaged is passed over, and that is said.

    Args:
        folder: of the run.
        say: told of damaged ones.
    Returns:
        The checkpoint; None where there is none at all.
    Raises:
        CheckpointError: all are damaged, or were written by another version.
    """
    damaged = []
    for one in found(folder / FOLDER):
        try:
            checkpoint = _read(one)
        except _OtherForm:
            raise
        except CheckpointError as error:
            damaged.append(str(error))
            continue
        for sentence in damaged:
            say(f"note: {sentence} Training goes on from step {checkpoint.step}, the checkpoint before.")
        return checkpoint
    if damaged:
        raise CheckpointError(
            f"no checkpoint in {folder / FOLDER} can be used: {' '.join(damaged)} Start anew with --overwrite."
        )
    return None


def look(folder: Path) -> dict[str, Any] | None:
    """Read what can be told about a run that was not finished, without its tensors.

    Args:
        folder: of the run.
    Returns:
        "step" and "facts" of its newest whole checkpoint; None where there is none.
    """
    for one in found(folder / FOLDER):
        with suppress(CheckpointError):
            manifest = _manifest(one)
            return {"step": manifest["step"], "facts": read_json(one / _FACTS, dict)}
    return None


def _manifest(folder: Path) -> dict[str, Any]:
    """Read a checkpoint's manifest and check its files against it."""
    manifest: dict[str, Any] = read_json(folder / _MANIFEST, dict)
    if manifest.get("form") != _FORM:
        raise _OtherForm(
            f"{folder} was written by another version of Tunesmith: its form is {manifest.get('form')!r}, this version "
            f"reads {_FORM}. Go on with the version that wrote it, or start anew with --overwrite."
        )
    for name, recorded in manifest["sha256"].items():
        here = sha256_of([folder / name]) if (folder / name).is_file() else "missing"
        if here != recorded:
            raise CheckpointError(f"{folder / name} is damaged: its hash is {here}, {_MANIFEST} says {recorded}.")
    return manifest


class _OtherForm(CheckpointError):
    """A checkpoint of another version, which no older checkpoint mends."""


def _read(folder: Path) -> Checkpoint:
    try:
        manifest = _manifest(folder)
    except (KeyError, AttributeError) as error:
        raise CheckpointError(f"{folder / _MANIFEST} is damaged: {error} is missing.") from None
    tensors, rows = read_tensors(folder / _TENSORS), folder / _ROWS
    return Checkpoint(
        folder,
        manifest["step"],
        read_json(folder / _FACTS, dict),
        unpacked(read_json(folder / _STATE, dict), tensors),
        read_tensors(rows) if rows.is_file() else {},
    )


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors that share memory with one before: a file holds each by itself."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return apart


def drop(folder: Path) -> None:
    """Remove a folder so that a crash meanwhile leaves none that looks whole; what an earlier crash left goes too.

    Args:
        folder: need not be there.
    """
    gone = folder.with_name(f".gone-{folder.name}")
    shutil.rmtree(gone, ignore_errors=True)
    if folder.exists():
        os.replace(folder, gone)
        shutil.rmtree(gone, ignore_errors=True)
