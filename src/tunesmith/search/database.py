"""The study database: an SQLite file that optuna writes, with every trial that was announced, taken or ended."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import quote

from tunesmith.core.errors import CheckpointError, RecipeError
from tunesmith.search.announced import BATCH, DEATHS, KILLED, OWNER, TRIAL, Announced
from tunesmith.search.bookkeeping import optuna, quiet, sqlite_at
from tunesmith.search.presence import PROCESSES, Presence
from tunesmith.search.reading import check_read
from tunesmith.search.same_facts import check_same
from tunesmith.search.trials import StudyTrial

FORMAT = 1  # of what stands in the study besides optuna's own
How = Literal["begin", "resume", "join"]
_FILE, _NAME = "study.db", "search"
_STATES = {"complete": "COMPLETE", "stopped": "PRUNED", "failed": "FAIL"}
_ENDED, _OUT = "ended", "came out"


class Database:
    """A study on disk, in which one process searches or several do together.

    Trials are announced batch by batch, taken by a process, and written when they have ended; what has ended is never
    changed. A folder in which nothing was tried yet, as after a mistake in the recipe, is begun anew.

    Args:
        folder: of the study.
        facts: that have to be the same when it goes on.
        higher_is_better: direction of the score.
        how: begin a study, resume one that was stopped, or join one that another process searches.
        agreed: what may change when it goes on, and has to be the same in all processes that share it.
    Raises:
        CheckpointError: there is one and it shall not go on, or none and it shall, or it is damaged, of another
            version, or of another search, or another process searches there, or none that could be joined.
    """

    def __init__(
        self,
        folder: Path,
        facts: dict[str, Any],
        higher_is_better: bool,
        how: How = "begin",
        agreed: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.folder, self.path = folder, folder / _FILE
        _check_there(folder, self.path, how)
        self.presence = Presence(folder)
        with self.presence.alone():
            self._check_company(how)
            self._check_folder(how)
            own = {**json.loads(json.dumps(facts)), "format": FORMAT, "optuna": optuna().__version__}
            self._storage, self._study = self._open(higher_is_better)
            kept = self._study.user_attrs.get("facts")
            if kept is None and not self._study.get_trials(deepcopy=False):
                self._study.set_user_attr("facts", own)
            else:
                self._check(kept, own)
            if how == "join":
                self._check_going_on()
                check_same(f"the search in {folder} that you join", self._study.user_attrs["agreed"], agreed)
            else:
                self._let_go()
                self._study.set_user_attr("agreed", json.loads(json.dumps(dict(agreed))))
            self.presence.enter()

    def close(self) -> None:
        """Leave the study to others."""
        with contextlib.suppress(FileNotFoundError), self.presence.alone():  # the folder may be gone
            self.presence.leave()

    def _check_company(self, how: How) -> None:
        """Refuse a second process that does not say that it joins, and one that joins nobody."""
        others = self.presence.others()
        if how != "join" and others:
            raise CheckpointError(
                f"another process is searching in {self.folder}. Take trials of its search with --join, wait until it "
                "has ended, or choose another output. More workers of one process come with search.workers."
            )
        if how == "join" and not self.presence.locks:
            raise CheckpointError(
                f"the file system of {self.folder} has no locks, by which processes share trials out. Choose an output "
                "on another one, or take search.workers."
            )
        self._joined = bool(others)

    def _check_going_on(self) -> None:
        """Refuse to join a study that nobody searches, or that needs no more trials."""
        ended = self.ended
        if ended is not None:
            raise CheckpointError(
                f"the study in {self.folder} has ended: {ended} trials were tried. It goes on with --resume and a "
                "larger budget, once no process is at work there."
            )
        if not self._joined:
            raise CheckpointError(f"no process is searching in {self.folder}. Go on with its study with --resume.")

    def _check_folder(self, how: How) -> None:
        """Refuse a folder that holds something else than what a study begins with."""
        if how != "begin":
            return
        if _nothing_tried(self.folder):
            self.path.unlink()
        if any(item.name != PROCESSES or not item.is_dir() for item in self.folder.iterdir()):
            raise CheckpointError(
                f"the output folder {self.folder} exists. Go on with its study with --resume, or choose another with "
                "output=FOLDER."
            )

    def _open(self, higher_is_better: bool) -> Any:
        direction = "maximize" if higher_is_better else "minimize"
        with _reading(self.path, "Go on with the version that wrote it, or choose another output."):
            storage = optuna().storages.RDBStorage(sqlite_at(str(self.path)))
            study = optuna().create_study(storage=storage, study_name=_NAME, load_if_exists=True, direction=direction)
            return storage, study

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
        with self.presence.alone():
            kept = self._study.user_attrs.get("read")
            if kept is None and not self._study.get_trials(deepcopy=False):
                self._study.set_user_attr("read", dict(own))
            else:
                check_read(f"{self.path} is the study", kept or {}, own)

    # Facts that all processes of a study read -----------------------------------------------------------------

    @property
    def carried_out(self) -> list[str] | None:
        """Overrides of the trial that the study's best run is of; None before there is one."""
        found: list[str] | None = self._study.user_attrs.get("carried out")
        return found

    @carried_out.setter
    def carried_out(self, overrides: list[str]) -> None:
        self._study.set_user_attr("carried out", overrides)

    @property
    def ended(self) -> int | None:
        """Number of trials after which a process found budget or space to be spent; None before."""
        found: int | None = self._study.user_attrs.get(_ENDED)
        return found

    @ended.setter
    def ended(self, trials: int | None) -> None:
        self._study.set_user_attr(_ENDED, trials)

    @property
    def told(self) -> bool:
        """Whether a process has written the result of these trials."""
        return bool(self._study.user_attrs.get("told"))

    @told.setter
    def told(self, whether: bool) -> None:
        self._study.set_user_attr("told", whether)

    @property
    def validation(self) -> str:
        """What tells the rows that choose from others; empty before the first trial ended."""
        return str(self._study.user_attrs.get("validation", ""))

    # Trials; call all of these alone --------------------------------------------------------------------------

    def announced(self, first: int) -> list[Announced]:
        """Read trials.

        Args:
            first: number of the first one.
        Returns:
            It and those of the same batch, in order.
        Raises:
            CheckpointError: one is damaged.
        """
        self._go_through()
        found = _announced(self._study, self.path, "Choose another output.", first)
        return [one for one in found if one.batch == found[0].batch]

    def announce(
        self, batch: int, drawn: Sequence[Any], overrides: Sequence[list[str]], over: Sequence[int], size: int
    ) -> None:
        """Let trials be taken.

        Args:
            batch: number of their batch.
            drawn: optuna's own, with their distributions; the first one's number is that of the trials there.
            overrides: `key=value` texts of each.
            over: points that were passed over before each. [count]
            size: trials of the batch, those that were announced before too. [count]
        Raises:
            CheckpointError: the disk is full or the folder is gone.
        """
        found = optuna().trial
        with _writing(self.path):
            for one, own, passed in zip(drawn, overrides, over, strict=True):
                attrs = {"batch": batch, "size": size, "overrides": own, "passed_over": passed}
                self._study.add_trial(
                    found.create_trial(
                        state=found.TrialState.WAITING, params=one.params, distributions=one.distributions,
                        user_attrs={BATCH: attrs},
                    )
                )  # fmt: skip

    def take(self, trials: Iterable[Announced]) -> None:
        """Take trials for this process.

        Args:
            trials: that no living process has; one that had an owner has outlived it.
        Raises:
            CheckpointError: the disk is full or the folder is gone.
        """
        states = optuna().trial.TrialState
        with _writing(self.path):
            for one in trials:
                if one.owner:
                    self._storage.set_trial_user_attr(one.place, DEATHS, one.deaths + 1)
                self._storage.set_trial_user_attr(one.place, OWNER, self.presence.name)
                self._storage.set_trial_state_values(one.place, states.RUNNING)

    def give_back(self, trials: Iterable[Announced]) -> None:
        """Let trials be taken again.

        Args:
            trials: that have not ended.
        """
        with _writing(self.path):
            for one in trials:
                self._storage.set_trial_state_values(one.place, optuna().trial.TrialState.WAITING)

    def finish(self, trials: Sequence[StudyTrial], validation: str) -> None:
        """Write what came out, all of it or, where the process is killed meanwhile, nothing.

        Args:
            trials: that this process took.
            validation: what tells the rows that choose from others; empty where no trial has opened them.
        Raises:
            CheckpointError: the disk is full or the folder is gone.
        """
        with _writing(self.path):
            if validation and not self.validation:
                self._study.set_user_attr("validation", validation)
            self._study.set_user_attr(_OUT, [one.plain() for one in trials])
        self._go_through()

    def _go_through(self) -> None:
        """Write what came out trial by trial, also what a process that was killed left to write."""
        out = [StudyTrial.of(values) for values in self._study.user_attrs.get(_OUT, ())]
        if not out:
            return
        found = {one.number: one for one in self._study.get_trials(deepcopy=False)}
        with _writing(self.path):
            for one in out:
                if not found[one.number].state.is_finished():
                    self._write_ended(one, found[one.number]._trial_id)
            self._study.set_user_attr(_OUT, [])

    def _write_ended(self, one: StudyTrial, place: int) -> None:
        storage, value = self._storage, one.outcome.value
        storage.set_trial_user_attr(place, TRIAL, json.dumps(one.plain()))
        storage.set_trial_user_attr(place, "reason", one.outcome.reason)
        for _, epoch, score in one.reports:
            storage.set_trial_intermediate_value(place, epoch, score)
        state = getattr(optuna().trial.TrialState, _STATES[one.outcome.state])
        storage.set_trial_state_values(place, state, None if value is None else [value])

    def _let_go(self) -> None:
        """Forget what processes that are gone had taken, and how the study ended before."""
        self._go_through()
        left = [one for one in _announced(self._study, self.path, "Choose another output.") if one.trial is None]
        with _writing(self.path):
            for one in left:
                if one.deaths:
                    self._storage.set_trial_user_attr(one.place, DEATHS, 0)
                if one.owner:
                    self._storage.set_trial_user_attr(one.place, KILLED, one.killed + 1)
        self.give_back(one for one in left if one.owner)
        self.ended, self.told = None, False


def how_of(resume: bool, join: bool) -> How:
    """Read how a study is gone on with.

    Args:
        resume: one that was stopped.
        join: one that another process searches.
    Returns:
        The word for it.
    Raises:
        RecipeError: both.
    """
    if resume and join:
        raise RecipeError("resume, join: a study that was stopped is resumed, one that is searched now is joined.")
    return "join" if join else "resume" if resume else "begin"


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
    with _reading(path, what):
        storage = sqlite_at(f"file:{quote(str(path.absolute()))}", mode="ro", uri="true")
        study = optuna().load_study(storage=storage, study_name=_NAME)
        facts, higher = study.user_attrs.get("facts"), study.direction.name == "MAXIMIZE"
    if not isinstance(facts, dict):
        raise CheckpointError(f"{path} was not written by `tunesmith search`. {what}")
    _check_version(path, facts, {"format": FORMAT}, what)
    return [one.trial for one in _announced(study, path, what) if one.trial is not None], higher


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


def _announced(study: Any, path: Path, what: str, first: int = 0) -> list[Announced]:
    try:
        return [Announced.of(one) for one in study.get_trials(deepcopy=False)[first:]]
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"{path} holds trials that no search wrote. {what}") from None


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 (of optuna, SQLAlchemy and SQLite)
        raise CheckpointError(
            f"cannot write {path}: {type(error).__name__}. Free space, then go on with --resume."
        ) from None


def _check_there(folder: Path, path: Path, how: How) -> None:
    """Make the folder of a study that begins; refuse to go on without one, or where nothing can be written."""
    if folder.is_dir() and not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise _not_writable(folder)
    if how != "begin" and not path.exists():
        what = "go on with" if how == "resume" else "join"
        raise CheckpointError(f"{folder} holds no study to {what} ({path.name} is missing). Leave --{how} out.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"the output folder {folder} cannot be made: {error.strerror}.") from None
    for one in (path, folder / PROCESSES):
        if one.exists() and not os.access(one, os.R_OK | os.W_OK):
            raise _not_writable(one)
    if how != "begin" and (folder / PROCESSES).exists() and not (folder / PROCESSES).is_dir():
        raise CheckpointError(
            f"{folder / PROCESSES} is a file, where searches keep a folder that says who is at work. Move it away, or "
            "choose another output."
        )


def _not_writable(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} cannot be written: its permissions, or those of its file system, do not let this user. Change them, "
        "or choose another output."
    )


def _nothing_tried(folder: Path) -> bool:
    """Say whether a folder holds a study of which no trial has ended, and nothing else."""
    if [item.name for item in folder.iterdir() if item.name != PROCESSES] != [_FILE]:
        return False
    try:
        with closing(sqlite3.connect(folder / _FILE)) as file:
            ended = "select count(*) from trials where state not in ('WAITING', 'RUNNING')"
            return bool(file.execute(ended).fetchone()[0] == 0)
    except sqlite3.Error:
        return False  # whatever it is, it is not ours to replace
