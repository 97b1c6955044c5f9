"""The study database: an SQLite file that optuna writes, with every trial that ended."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tunesmith.core.errors import CheckpointError
from tunesmith.search.bookkeeping import optuna, quiet
from tunesmith.search.reading import check_read
from tunesmith.search.same_facts import check_same
from tunesmith.search.trials import StudyTrial

FORMAT = 1  # of what stands in the study besides optuna's own
_FILE, _NAME = "study.db", "search"
_STATES = {"complete": "COMPLETE", "stopped": "PRUNED", "failed": "FAIL"}


class Database:
    """A study on disk. Trials are added once their batch has ended, in order; what is there is never changed.

    A folder in which nothing was tried yet, as after a mistake in the recipe, is begun anew.

    Args:
        folder: of the study.
        facts: that have to be the same when it goes on.
        higher_is_better: direction of the score.
        resume: go on with a study that is there.
    Raises:
        CheckpointError: there is one and it shall not go on, or none and it shall, or it is damaged, of another
            version, or of another search, or another process searches there.
    """

    def __init__(self, folder: Path, facts: dict[str, Any], higher_is_better: bool, resume: bool) -> None:
        self.path = folder / _FILE
        self._lock = _locked(folder)
        try:
            self._check_folder(folder, resume)
            self._lock = _locked(folder) if self._lock is None else self._lock
            own = {**json.loads(json.dumps(facts)), "format": FORMAT, "optuna": optuna().__version__}
            self._study = self._open(higher_is_better)
            kept = self._study.user_attrs.get("facts")
            if kept is None and not self._study.get_trials(deepcopy=False):
                self._study.set_user_attr("facts", own)
            else:
                self._check(kept, own)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let other processes search in the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _check_folder(self, folder: Path, resume: bool) -> None:
        """Make the folder, or refuse it."""
        if not resume and _nothing_tried(folder):
            self.path.unlink()
        if folder.exists() and any(folder.iterdir()) and not resume:
            raise CheckpointError(
                f"the output folder {folder} exists. Go on with its study with --resume, or choose another with "
                "output=FOLDER."
            )
        if resume and not self.path.exists():
            raise CheckpointError(f"{folder} holds no study to go on with ({_FILE} is missing). Leave --resume out.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"the output folder {folder} cannot be made: {error.strerror}.") from None

    def _open(self, higher_is_better: bool) -> Any:
        direction = "maximize" if higher_is_better else "minimize"
        with _reading(self.path, "Go on with the version that wrote it, or choose another output."):
            return optuna().create_study(
                storage=f"sqlite:///{self.path}", study_name=_NAME, load_if_exists=True, direction=direction
            )

    def _check(self, kept: Any, own: dict[str, Any]) -> None:
        if not isinstance(kept, dict):
            raise CheckpointError(f"{self.path} was not written by `tunesmith search`. Choose another output.")
        _check_version(self.path, kept, own, "Go on with the version that wrote it, or choose another output.")
        check_same(f"{self.path} is the study of another search", kept, own)

    def read(self, own: Mapping[str, str]) -> None:
        """Keep what trials read, or refuse to go on where it is not what the trials before read.

        Args:
            own: hashes by name.
        Raises:
            CheckpointError: rows or model are others.
        """
        kept = self._study.user_attrs.get("read")
        if kept is None and not self._study.get_trials(deepcopy=False):
            self._study.set_user_attr("read", dict(own))
        else:
            check_read(f"{self.path} is the study", kept or {}, own)

    def trials(self) -> list[StudyTrial]:
        """Read the trials.

        Returns:
            In order; those of a batch that was not written whole are there too.
        Raises:
            CheckpointError: one is damaged.
        """
        return _trials(self._study, self.path, "Choose another output.")

    @property
    def carried_out(self) -> list[str] | None:
        """Overrides of the trial that the study's best run is of; None before there is one."""
        found: list[str] | None = self._study.user_attrs.get("carried out")
        return found

    @carried_out.setter
    def carried_out(self, overrides: list[str]) -> None:
        self._study.set_user_attr("carried out", overrides)

    def add(self, trials: Sequence[StudyTrial], live: Sequence[Any]) -> None:
        """Keep trials.

        Args:
            trials: in order, the first one's number that of the trials that are there.
            live: optuna's own, with their distributions.
        Raises:
            CheckpointError: the disk is full or the folder is gone.
        """
        found = optuna()
        for one, drawn in zip(trials, live, strict=True):
            state = getattr(found.trial.TrialState, _STATES[one.outcome.state])
            frozen = found.trial.create_trial(
                state=state, value=one.outcome.value, params=drawn.params, distributions=drawn.distributions,
                intermediate_values={epoch: score for _, epoch, score in one.reports},
                user_attrs={"trial": json.dumps(one.plain()), "reason": one.outcome.reason},
            )  # fmt: skip
            try:
                self._study.add_trial(frozen)
            except Exception as error:  # noqa: BLE001 (of optuna, SQLAlchemy and SQLite)
                raise CheckpointError(
                    f"cannot write {self.path}: {type(error).__name__}. Free space, then go on with --resume."
                ) from None


def read_earlier(folder: Path) -> tuple[list[StudyTrial], bool]:
    """Read the trials of an earlier study; nothing in its folder is changed.

    Args:
        folder: of the study.
    Returns:
        Trials in order, and whether higher scores are better.
    Raises:
        CheckpointError: it holds no study, or one that is damaged or of another version.
    """
    path, what = folder / _FILE, "Leave it out of search.warm_start."
    if not path.exists():
        raise CheckpointError(
            f"search.warm_start: {folder} holds no study of `tunesmith search` ({_FILE} is missing). Name the output "
            "folder of one."
        )
    storage = f"sqlite:///file:{quote(str(path.absolute()))}?mode=ro&uri=true"
    with _reading(path, what):
        study = optuna().load_study(storage=storage, study_name=_NAME)
        facts, higher = study.user_attrs.get("facts"), study.direction.name == "MAXIMIZE"
    if not isinstance(facts, dict):
        raise CheckpointError(f"{path} was not written by `tunesmith search`. {what}")
    _check_version(path, facts, {"format": FORMAT}, what)
    return _trials(study, path, what), higher


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    """Word what optuna says about a file that is no study of its version."""
    try:
        with quiet():
            yield
    except Exception as error:  # noqa: BLE001 (optuna, alembic and SQLAlchemy each have errors of their own)
        why = (str(error).splitlines() or [""])[0][:200]
        raise CheckpointError(
            f"{path} cannot be read as a study: it is damaged, or of another version of optuna than "
            f"{optuna().__version__} ({type(error).__name__}: {why}). {what}"
        ) from None


def _check_version(path: Path, kept: Mapping[str, Any], own: Mapping[str, Any], what: str) -> None:
    for key in ("format", "optuna"):
        if key in own and kept.get(key) != own[key]:
            raise CheckpointError(
                f"{path} is of another version: {key} {kept.get(key)}, and this is {own[key]}. {what}"
            )


def _trials(study: Any, path: Path, what: str) -> list[StudyTrial]:
    try:
        kept = [json.loads(one.user_attrs["trial"]) for one in study.get_trials(deepcopy=False)]
        return [StudyTrial.of(values) for values in kept]
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"{path} holds trials that no search wrote. {what}") from None


def _locked(folder: Path) -> int | None:
    """Keep other processes from searching in a folder; None where there is none, or its file system has no locks."""
    if not folder.is_dir():
        return None
    found = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(found)
        raise CheckpointError(
            f"another process is searching in {folder}. Wait until it has ended, or choose another output. More "
            "workers of one search come with search.workers."
        ) from None
    except OSError:
        os.close(found)
        return None
    return found


def _nothing_tried(folder: Path) -> bool:
    """Say whether a folder holds a study without trials and nothing else."""
    if not folder.is_dir() or [item.name for item in folder.iterdir()] != [_FILE]:
        return False
    try:
        with closing(sqlite3.connect(folder / _FILE)) as file:
            return bool(file.execute("select count(*) from trials").fetchone()[0] == 0)
    except sqlite3.Error:
        return False  # whatever it is, it is not ours to replace
