"""The run folder: complete or absent. It is built beside its final place and renamed into it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tunesmith.core.errors import CheckpointError, CompatibilityError
from tunesmith.core.files import flush_folder
from tunesmith.training.checkpoints import FOLDER as CHECKPOINTS
from tunesmith.training.checkpoints import drop, found

FINGERPRINT = "fingerprint.json"
_WRITING = ".writing-"
CLASSES = "classes.json"  # in a run of meta-training, the classes learned from and those scored on
BASE = "base"  # folder in the run of a model that was made for it
_BEST = "best"  # folder in the run, or in a member's, with the states of its best epochs
LEARNED = "ensemble.safetensors"  # in the run of an ensemble, what its members are put together with
_MEMBERS = "members"  # folder in the run with the second and further deltas of an ensemble


def member_folder(run: Path, number: int) -> Path:
    """Return where a member's delta and head lie.

    Args:
        run: folder of the run.
        number: of the member; the first one's is the run itself.
    Returns:
        The folder.
    """
    return run / _MEMBERS / f"{number:03d}" if number else run


def best_folder(run: Path, number: int, epoch: int) -> Path:
    """Return where a member's delta and head lie as they were after one of its best epochs.

    Args:
        run: folder of the run.
        number: of the member.
        epoch: from 1.
    Returns:
        The folder.
    """
    return member_folder(run, number) / _BEST / f"epoch-{epoch:03d}"


def count_members(run: Path) -> int:
    """Count the deltas that answer together in a run.

    Args:
        run: its folder.
    Returns:
        1 for a run that is no ensemble. [count]
    """
    number = 1
    while member_folder(run, number).is_dir():
        number += 1
    return number


def check_single(run: Path, what: str) -> None:
    """Refuse what one delta alone can do.

    Args:
        run: folder of a run, or of a delta.
        what: is to be done, as a verb.
    Raises:
        CompatibilityError: the run is an ensemble.
    """
    members = count_members(run)
    if members > 1:
        raise CompatibilityError(
            f"{run} is an ensemble of {members} deltas that answer together; one delta cannot stand for "
            f"it, so there is nothing to {what}. Train with combine=best."
        )


def check_free(output: Path, overwrite: bool) -> None:
    """Refuse, before any work, an output folder that is taken or cannot be made.

    Args:
        output: the run's folder.
        overwrite: whether an existing run may be replaced.
    Raises:
        CheckpointError: it exists, is not a run, or cannot be written.
    """
    if output.exists() and not _only_begun(output) and not _empty(output):
        if not overwrite and found(output / CHECKPOINTS):
            raise CheckpointError(
                f"the output folder {output} holds a run that is not finished. Go on with it with --resume, replace it "
                "with --overwrite, or choose another with output=FOLDER."
            )
        if not overwrite:
            raise CheckpointError(
                f"the output folder {output} exists. Choose another with output=FOLDER, or replace it with --overwrite."
            )
        if not is_run(output):
            raise CheckpointError(
                f"{output} exists and is not a run folder, so --overwrite does not replace it. Choose another output."
            )
    _staging(output).rmdir()


def is_run(folder: Path) -> bool:
    """Say whether a folder is a run's, finished or not.

    Args:
        folder: any path.
    """
    return (folder / FINGERPRINT).is_file() or bool(found(folder / CHECKPOINTS))


def is_meta_trained(folder: Path) -> bool:
    """Say whether a folder is a finished run of meta-training.

    Args:
        folder: any path.
    """
    return (folder / FINGERPRINT).is_file() and (folder / CLASSES).is_file()


def _empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _only_begun(folder: Path) -> bool:
    """Say whether a folder holds nothing but the beginning of a first checkpoint, as a crash leaves it."""
    if not folder.is_dir() or found(folder / CHECKPOINTS):
        return False
    return [one.name for one in folder.iterdir()] == [CHECKPOINTS]


def unfinished(folder: Path) -> str:
    """Word how far a run got that was not finished.

    Args:
        folder: of the run.
    Returns:
        A sentence; empty for a folder that was not begun, or is finished.
    """
    steps = found(folder / CHECKPOINTS)
    if not steps and not _only_begun(folder):
        return ""
    if not steps:
        return f"{folder} ended while its first checkpoint was written. Its command with --resume starts it anew."
    step = int(steps[0].name.rpartition("-")[2])
    return f"{folder} is not finished: its last checkpoint is of step {step}. Its command with --resume goes on."


def check_new(output: Path) -> None:
    """Refuse, before any work, an output folder that exists or cannot be made.

    Args:
        output: the folder.
    Raises:
        CheckpointError: it exists or cannot be written.
    """
    if output.exists() and not _empty(output):
        raise CheckpointError(f"the output folder {output} exists. Choose another, or remove it first.")
    _staging(output).rmdir()


def _staging(output: Path) -> Path:
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        made = output.parent / f".{output.name}.{secrets.token_hex(4)}"
        made.mkdir(mode=0o755)  # less where the user's umask says so
        return made
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
        flush_folder(staging)
        _replace(staging, output)
    except OSError as error:
        raise CheckpointError(
            f"the run cannot be written to {output}: {error.strerror or error}. Nothing was left half-written."
        ) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _replace(staging: Path, output: Path) -> None:
    """Give a folder its final name; an older one comes back where that fails, and goes where it does not."""
    if not output.exists():
        os.replace(staging, output)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    older = aside / "old"
    try:
        os.replace(output, older)
        os.replace(staging, output)
    except OSError:
        if older.exists():
            os.replace(older, output)
        aside.rmdir()
        raise
    shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def completed(output: Path, unfinished: bool) -> Iterator[Path]:
    """Give a folder to write a run's files into, beside its checkpoints; they become the run if the block succeeds.

    A crash at any moment leaves an older complete run, or checkpoints to go on from, or the new complete run: the
    checkpoints go last of all.

    Args:
        output: the run's folder, which holds its checkpoints where anything trained.
        unfinished: whether the checkpoints stay, to go on from later.
    Returns:
        A temporary folder in it.
    Raises:
        CheckpointError: it cannot be written; the checkpoints stay.
    """
    if not found(output / CHECKPOINTS):  # nothing trained
        with staged(output) as folder:
            yield folder
        return
    staging: Path | None = None
    try:
        for left in output.glob(f"{_WRITING}*"):  # by a crash
            shutil.rmtree(left)
        staging = Path(tempfile.mkdtemp(prefix=_WRITING, dir=output))
        yield staging
        flush_folder(staging)
        _put(staging, output)
        if not unfinished:
            drop(output / CHECKPOINTS)
    except OSError as error:
        raise CheckpointError(
            f"the run cannot be written to {output}: {error.strerror or error}. Its checkpoints are whole: free space "
            "there and go on with --resume."
        ) from None
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


def _put(staging: Path, output: Path) -> None:
    """Put files in the place of an older run's, whose fingerprint goes first; the new one's comes last."""
    (output / FINGERPRINT).unlink(missing_ok=True)
    for old in output.iterdir():
        if old.name != CHECKPOINTS and not old.name.startswith("."):
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    for new in sorted(staging.iterdir(), key=lambda one: one.name == FINGERPRINT):
        os.replace(new, output / new.name)
    flush_folder(output)
