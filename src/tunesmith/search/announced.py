"""Trials as they stand in the study database: announced, taken by a process, ended."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tunesmith.search.trials import StudyTrial

# What optuna keeps of a trial besides its own.
BATCH, OWNER, DEATHS, KILLED, TRIAL = "batch", "owner", "deaths", "killed", "trial"


@dataclass(frozen=True)
class Announced:
    """A trial of a batch.

    Args:
        number: from 0.
        place: what optuna calls it by.
        batch: number of its batch.
        size: trials of that batch. [count]
        overrides: `key=value` texts that make its recipe of the study's.
        owner: name of the process that took it; empty where none did.
        deaths: processes that ended while they trained it, of those that search together. [count]
        killed: searches that ended while they trained it, and were resumed. [count]
        trial: what came out; None before it ended.
        passed_over: points that were drawn before it and not tried. [count]
    """

    number: int
    place: int
    batch: int
    size: int
    overrides: list[str]
    owner: str = ""
    deaths: int = 0
    killed: int = 0
    trial: StudyTrial | None = None
    passed_over: int = 0

    @classmethod
    def of(cls, frozen: Any) -> Announced:
        """Read it.

        Args:
            frozen: as optuna gives it.
        Returns:
            The trial.
        Raises:
            KeyError: no search wrote it.
            TypeError: the same.
            ValueError: the same.
        """
        kept, place = frozen.user_attrs, frozen._trial_id  # the only name that optuna's storage knows a trial by
        over = kept.get(BATCH, {}).get("passed_over", 0)
        if frozen.state.is_finished():
            trial = StudyTrial.of(json.loads(kept[TRIAL]))
            return cls(frozen.number, place, trial.batch, trial.size, trial.overrides, trial=trial, passed_over=over)
        own, owner = kept[BATCH], kept.get(OWNER, "") if frozen.state.name == "RUNNING" else ""
        ends = kept.get(DEATHS, 0), kept.get(KILLED, 0)
        return cls(frozen.number, place, own["batch"], own["size"], own["overrides"], owner, *ends, passed_over=over)
