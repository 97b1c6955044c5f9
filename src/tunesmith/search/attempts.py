"""What a closed loop tried, and the file that keeps it round by round."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.core.errors import CheckpointError
from tunesmith.core.files import write_atomic
from tunesmith.evaluation.predictions import Predictions
from tunesmith.evaluation.statistics import Result
from tunesmith.evaluation.written import Written
from tunesmith.search.changes import Change
from tunesmith.search.designs import Design
from tunesmith.search.errors_seen import Errors
from tunesmith.search.journal import Journal
from tunesmith.search.trials import Outcome

_FACTS, _ROUNDS, _ANSWERS, _DESIGNS = "loop.json", "rounds.jsonl", "answers", "designs.jsonl"


@dataclass(frozen=True)
class Test:
    """A paired comparison on the validation rows.

    Args:
        against: number of the attempt that it is compared with.
        gain: over it, positive when better. [of the metric]
        low: end of its interval.
        high: end of its interval.
        p_value: two-sided, of no difference.
        corrected: the same, corrected for the comparisons of the round (Holm).
    """

    __test__ = False  # no test of pytest's

    against: int
    gain: float
    low: float
    high: float
    p_value: float
    corrected: float = 1.0


@dataclass(frozen=True)
class Attempt:
    """One recipe that was tried.

    Args:
        number: from 0, the recipe as written.
        by: start or adjustment that proposed it; empty for the recipe as written.
        change: what it changes of the best recipe then, and why.
        values: all that it changes of the recipe as written, by dotted key.
        outcome: what came out.
        errors: what it gets wrong; None where it failed.
        test: against the best then; None where it left early or failed, and for the recipe as written.
    """

    number: int
    by: str
    change: Change
    values: Mapping[str, Any]
    outcome: Outcome
    errors: Errors | None = None
    test: Test | None = None

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Attempt:
        """Read it from plain values.

        Args:
            values: from `plain`.
        Returns:
            The attempt.
        """
        errors, test = values["errors"], values["test"]
        parts = {
            "change": Change(**values["change"]),
            "outcome": Outcome(**values["outcome"]),
            "errors": None if errors is None else Errors.of(errors),
            "test": None if test is None else Test(**test),
        }
        return cls(**{**values, **parts})


@dataclass(frozen=True)
class Round:
    """One round.

    Args:
        number: from 0, the recipe as written alone.
        ended: seconds of the loop when it had ended.
        attempts: of it.
        best: number of the best attempt from then on.
        decision: what was decided, and by what evidence.
        read: hashes of the rows and the model that the loop reads.
    """

    number: int
    ended: float
    attempts: Sequence[Attempt]
    best: int
    decision: str
    read: Mapping[str, str]

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**vars(self), "attempts": [one.plain() for one in self.attempts]}

    @classmethod
    def of(cls, values: dict[str, Any]) -> Round:
        """Read it from plain values.

        Args:
            values: from `plain`.
        Returns:
            The round.
        """
        return cls(**{**values, "attempts": [Attempt.of(one) for one in values["attempts"]]})


@dataclass
class Record:
    """A loop's folder: what it is (loop.json), its rounds (rounds.jsonl), what attempts answered (answers/), and
    searches of prompts (designs.jsonl).

    A round, and a search, is one line, written when it has ended.

    Args:
        folder: of the loop.
        facts: that have to be the same when it goes on.
        resume: go on with one that is there.
        rounds: that are there.
        designs: searches of prompts that are there.
    Raises:
        CheckpointError: there is one and it shall not go on, or none and it shall, or it is of another recipe, or
            damaged.
    """

    folder: Path
    facts: dict[str, Any]
    resume: bool
    rounds: list[Round] = field(default_factory=list)
    designs: list[Design] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._journal = Journal(self.folder, "loop", _FACTS, _ROUNDS)
        self._journal.open(self.facts, self.resume)
        self.rounds = self._journal.read(Round.of)
        self._designed = Journal(self.folder, "loop", _FACTS, _DESIGNS)
        self.designs = self._designed.read(Design.of)

    def add(self, ended: Round) -> None:
        """Keep a round.

        Args:
            ended: it.
        Raises:
            CheckpointError: the disk is full or the folder is gone.
        """
        self._journal.add(ended.plain())
        self.rounds.append(ended)

    def add_design(self, ended: Design) -> None:
        """Keep a search of a prompt.

        Args:
            ended: it.
        Raises:
            CheckpointError: the disk is full or the folder is gone.
        """
        self._designed.add(ended.plain())
        self.designs.append(ended)

    def designed_seconds(self, before: int) -> float:
        """Say how long searches of prompts took that were made for a round.

        Args:
            before: number of the round.
        Returns:
            Seconds.
        """
        return sum(one.seconds for one in self.designs if one.before == before)

    def keep_answers(self, number: int, result: Result) -> None:
        """Keep what an attempt did on the validation rows.

        Args:
            number: of the attempt.
            result: what it did.
        """
        if isinstance(result, Predictions):
            tables = {"probabilities": result.probabilities, "references": result.references}
        else:
            tables = {"nats": result.nats, "tokens": result.tokens, "characters": result.characters}

        def write(path: Path) -> None:
            with open(path, "wb") as file:
                np.savez_compressed(file, allow_pickle=False, **tables)

        (self.folder / _ANSWERS).mkdir(exist_ok=True)
        write_atomic(self._answers(number), write)

    def answers(self, number: int) -> Result:
        """Read what an attempt did on the validation rows.

        Args:
            number: of the attempt.
        Returns:
            What it did.
        Raises:
            CheckpointError: the file is gone or damaged.
        """
        try:
            with np.load(self._answers(number), allow_pickle=False) as file:
                tables = {name: file[name] for name in file.files}
            return Predictions(**tables) if "probabilities" in tables else Written(**tables)
        except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
            raise CheckpointError(
                f"{self._answers(number)} cannot be read ({type(error).__name__}). Begin the loop anew in another "
                "output."
            ) from None

    def has_answers(self, number: int) -> bool:
        """Say whether what an attempt did on the validation rows is there.

        Args:
            number: of the attempt.
        Returns:
            Whether its file is.
        """
        return self._answers(number).is_file()

    def _answers(self, number: int) -> Path:
        return self.folder / _ANSWERS / f"{number:04d}.npz"
