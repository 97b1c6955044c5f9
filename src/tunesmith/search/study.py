"""The study folder: what was tried, line by line, so that a search goes on where it was killed."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.errors import CheckpointError
from tunesmith.core.files import read_json, write_json
from tunesmith.search.problem import Score
from tunesmith.search.same_facts import check_same

_FACTS, _TRIED = "study.json", "tried.jsonl"


@dataclass(frozen=True)
class Tried:
    """One evaluation.

    Args:
        identity: of the candidate.
        rows: it was scored on. [count]
        value: its score, higher is better.
        loss: its log loss. [nats]
        seconds: of searching when it ended.
        candidate: itself, as plain values.
        refused: why it could not be scored; empty for most.
    """

    identity: str
    rows: int
    value: float
    loss: float
    seconds: float
    candidate: dict[str, Any]
    refused: str = ""

    @property
    def score(self) -> Score:
        """The score alone."""
        return Score(self.value, self.loss, self.rows)


class Study:
    """A folder with what a search is (study.json) and what it tried (tried.jsonl).

    Every line is written whole and flushed to the disk before the search goes on; a line that a kill cut short is
    dropped when the study is opened again. A folder in which nothing was tried yet, as after a mistake in the prompt,
    is begun anew.

    Args:
        folder: of the study.
        facts: that have to be the same when a search goes on: strategy, seed, budget, data, model.
        resume: go on with a study that is there.
    Raises:
        CheckpointError: it is there and shall not go on, or its facts differ, or it is damaged.
    """

    def __init__(self, folder: Path, facts: dict[str, Any], resume: bool = False) -> None:
        self.folder = folder
        self._kept: dict[tuple[str, int], Tried] = {}
        if folder.exists() and any(item.name != _FACTS for item in folder.iterdir()) and not resume:
            raise CheckpointError(
                f"the output folder {folder} exists. Go on with its search with --resume, or choose another output."
            )
        if resume and (folder / _FACTS).exists():
            check_same(f"{folder} holds another search", read_json(folder / _FACTS, dict), facts)
            self._read()
            return
        if resume:
            raise CheckpointError(f"{folder} holds no search to go on with ({_FACTS} is missing). Leave --resume out.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"the output folder {folder} cannot be made: {error.strerror}.") from None
        write_json(folder / _FACTS, facts)

    def _read(self) -> None:
        path = self.folder / _TRIED
        lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
        whole, torn = lines[:-1], lines[-1]
        for number, line in enumerate(whole, 1):
            try:
                tried = Tried(**json.loads(line))
            except (ValueError, TypeError):
                raise CheckpointError(
                    f"{path}, line {number} is damaged. Delete that line and those after it, then resume."
                ) from None
            self._kept[tried.identity, tried.rows] = tried
        if torn:
            with open(path, "rb+") as file:
                file.truncate(sum(len(line) + 1 for line in whole))

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, identity: str, rows: int) -> Tried | None:
        """Look up an evaluation.

        Args:
            identity: of the candidate.
            rows: it was scored on. [count]
        Returns:
            It, or None where it was not made.
        """
        return self._kept.get((identity, rows))

    def add(self, tried: Tried) -> None:
        """Keep an evaluation.

        Args:
            tried: it.
        Raises:
            CheckpointError: the disk is full or the folder is gone.
        """
        line = json.dumps(asdict(tried), ensure_ascii=False) + "\n"
        try:
            with open(self.folder / _TRIED, "ab") as file:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise CheckpointError(
                f"cannot write {self.folder / _TRIED}: {error.strerror}. Free space, then go on with --resume."
            ) from None
        self._kept[tried.identity, tried.rows] = tried
