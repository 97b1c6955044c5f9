"""The study folder: what was tried, line by line, so that a search goes on where it was killed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunesmith.search.journal import Journal
from tunesmith.search.problem import Score

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

    Args:
        folder: of the study.
        facts: that have to be the same when a search goes on: strategy, seed, budget, data, model.
        resume: go on with a study that is there.
    Raises:
        CheckpointError: it is there and shall not go on, or its facts differ, or it is damaged.
    """

    def __init__(self, folder: Path, facts: dict[str, Any], resume: bool = False) -> None:
        self._journal = Journal(folder, "search", _FACTS, _TRIED)
        self._journal.open(facts, resume)
        tried = self._journal.read(lambda values: Tried(**values))
        self._kept = {(one.identity, one.rows): one for one in tried}

    @staticmethod
    def begun(folder: Path) -> bool:
        """Say whether a folder holds a search.

        Args:
            folder: any; it need not be there.
        Returns:
            Whether one can go on.
        """
        return (folder / _FACTS).exists()

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
        self._journal.add(asdict(tried))
        self._kept[tried.identity, tried.rows] = tried
