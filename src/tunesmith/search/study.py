"""The study folder: what was tried, line by line, so that a search goes on where it was killed."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.errors import RecipeError
from tunesmith.search.budget import Budget
from tunesmith.search.journal import Journal
from tunesmith.search.problem import Score

_FACTS, _TRIED, _BUDGET = "study.json", "tried.jsonl", "budget"


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
        spent: of the budget when it ended, by edits too. [evaluations]
    """

    identity: str
    rows: int
    value: float
    loss: float
    seconds: float
    candidate: dict[str, Any]
    refused: str = ""
    spent: float = 0.0

    @property
    def score(self) -> Score:
        """The score alone."""
        return Score(self.value, self.loss, self.rows)


class Study:
    """A folder with what a search is (study.json) and what it tried (tried.jsonl).

    Args:
        folder: of the study.
        facts: that have to be the same when a search goes on: strategy, seed, data, model; not "budget", which it may
            have more of.
        resume: go on with a study that is there.
    Raises:
        CheckpointError: it is there and shall not go on, or its facts differ, or it is damaged.
    """

    def __init__(self, folder: Path, facts: dict[str, Any], resume: bool = False) -> None:
        self.folder = folder
        self._journal = Journal(folder, "search", _FACTS, _TRIED, free=(_BUDGET,))
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

    def check_budget(self, budget: Budget) -> None:
        """Refuse a budget that is smaller than what was spent.

        Of seconds the last evaluation does not count: it began within the time, and mostly ends after it.

        Args:
            budget: that the search goes on with.
        Raises:
            RecipeError: it is.
        """
        tried = self._kept.values()
        spent = max((one.spent for one in tried), default=0.0)
        seconds = max(sorted(one.seconds for one in tried)[:-1], default=0.0)
        if budget.evaluations is not None and budget.evaluations < spent - 1e-9:
            given, had, least = f"{budget.evaluations:g} evaluations", f"{spent:.4g}", f"{math.ceil(spent - 1e-9)}"
        elif budget.seconds is not None and budget.seconds < seconds:
            given, had, least = f"{budget.seconds:g} s", f"{seconds:.0f} s", f"{math.ceil(seconds)}s"
        else:
            return
        raise RecipeError(
            f"budget: {given} are less than the {had} that the search in {self.folder} has spent. Give at least "
            f"{least}; what was tried stays as it is."
        )

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
