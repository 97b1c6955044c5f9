"""A folder that work is written down in, line by line, so that it goes on where it was stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tunesmith.core.errors import CheckpointError
from tunesmith.core.files import read_json, write_json
from tunesmith.search.same_facts import check_same

Read = TypeVar("Read")


@dataclass(frozen=True)
class Journal:
    """What was asked for, a JSON file, and what was done since, a line each.

    A line is written whole and flushed to the disk; one that a kill cut short is dropped, and what it told is done
    again. A folder in which nothing was done yet, as after a mistake in the data, is begun anew.

    Args:
        folder: of the work.
        what: the work is, for messages, for example "loop".
        asked: name of the JSON file.
        done: name of the file of lines.
        free: names of facts that may be others when the work goes on.
    """

    folder: Path
    what: str
    asked: str
    done: str
    free: Sequence[str] = ()

    def open(self, facts: Mapping[str, Any], resume: bool) -> None:
        """Begin, or go on.

        Args:
            facts: that have to be the same when the work goes on, plain values.
            resume: go on with what is there.
        Raises:
            CheckpointError: it is there and shall not go on, or it is not and shall, or its facts differ, or the folder
                cannot be made.
        """
        asked = self.folder / self.asked
        if self._used() and not resume:
            then = f"Go on with its {self.what} with --resume" if asked.exists() else "Remove it first"
            raise CheckpointError(f"the output folder {self.folder} exists. {then}, or choose another output.")
        if resume and not asked.exists():
            raise CheckpointError(
                f"{self.folder} holds no {self.what} to go on with ({self.asked} is missing). Leave --resume out."
            )
        if resume:
            kept, now = (
                {key: one[key] for key in one if key not in self.free} for one in (read_json(asked, dict), facts)
            )
            check_same(f"{self.folder} holds another {self.what}", kept, now)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"the output folder {self.folder} cannot be made: {error.strerror}.") from None
        write_json(asked, dict(facts))

    def _used(self) -> bool:
        """Say whether something is there besides what was asked for."""
        if not self.folder.is_dir():
            return self.folder.exists()
        return any(item.name != self.asked for item in self.folder.iterdir())

    def read(self, of: Callable[[dict[str, Any]], Read]) -> list[Read]:
        """Read what was done, and drop a torn last line.

        Args:
            of: makes it of the plain values of a line.
        Returns:
            One for each line.
        Raises:
            CheckpointError: a line is damaged.
        """
        path, found = self.folder / self.done, list[Read]()
        *whole, torn = path.read_bytes().split(b"\n") if path.exists() else [b""]
        for number, line in enumerate(whole, 1):
            try:
                found.append(of(json.loads(line)))
            except (ValueError, TypeError, KeyError, AttributeError):
                raise self.damaged(number) from None
        if torn:
            with open(path, "rb+") as file:
                file.truncate(sum(len(line) + 1 for line in whole))
        return found

    def damaged(self, number: int) -> CheckpointError:
        """Word that a line is damaged.

        Args:
            number: of the line, from 1.
        Returns:
            The error.
        """
        return CheckpointError(
            f"{self.folder / self.done}, line {number} is damaged. Delete that line and those after it, then resume."
        )

    def add(self, values: Mapping[str, Any]) -> None:
        """Write a line.

        Args:
            values: what was done, plain.
        Raises:
            CheckpointError: the disk is full or the folder is gone.
        """
        path = self.folder / self.done
        try:
            with open(path, "ab") as file:
                file.write((json.dumps(dict(values), ensure_ascii=False) + "\n").encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise CheckpointError(
                f"cannot write {path}: {error.strerror}. Free space, then go on with --resume."
            ) from None
