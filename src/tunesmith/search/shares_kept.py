"""What the shares of a learning curve scored, and the folder that keeps it, so that a curve goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.settings import Settings
from tunesmith.evaluation.comparison import flattened
from tunesmith.recipe.loading import Checked
from tunesmith.search.journal import Journal
from tunesmith.search.reading import check_read

_FORMAT = 1  # of a curve's folder
_FACTS, _SHARES = "asked.json", "shares.jsonl"


@dataclass(frozen=True)
class Scored:
    """What a share scored.

    Args:
        value: on the validation rows as they are.
        table: on resamples of them.
    """

    value: float
    table: list[float]


@dataclass(frozen=True)
class Together:
    """Shares that trained together.

    Args:
        ended: seconds of the curve when they had ended.
        read: hashes of the rows and the model that they came from.
        shares: what they scored, by number.
    """

    ended: float
    read: dict[str, str]
    shares: dict[int, Scored]

    @classmethod
    def of(cls, values: dict[str, Any]) -> Together:
        """Read them from plain values.

        Args:
            values: as JSON has them, whose keys are texts.
        Returns:
            The shares.
        """
        shares = {int(number): Scored(**one) for number, one in values["shares"].items()}
        return cls(**{**values, "shares": shares})


class SharesKept:
    """A curve's folder: what was asked for (asked.json), and the shares that were trained (shares.jsonl).

    Args:
        folder: of the curve.
        facts: that have to be the same when it goes on.
        resume: go on with one that is there.
    Raises:
        CheckpointError: there is one and it shall not go on, or none and it shall, or it is of another recipe, or
            damaged.
    """

    def __init__(self, folder: Path, facts: dict[str, Any], resume: bool) -> None:
        self.folder = folder
        self._journal = Journal(folder, "learning curve", _FACTS, _SHARES)
        self._journal.open(facts, resume)
        self._kept = self._journal.read(Together.of)

    @property
    def ended(self) -> float:
        """Seconds of the curve when the latest shares had ended."""
        return self._kept[-1].ended if self._kept else 0.0

    def recall(self, read: Mapping[str, str], wanted: Sequence[range]) -> dict[int, Scored]:
        """Give what was trained before.

        Args:
            read: hashes of the rows and the model now.
            wanted: numbers of the shares that train together, in their order.
        Returns:
            The scores of the first of them, by number.
        Raises:
            CheckpointError: they came from other rows or another model, or they are not the first ones.
        """
        for line, together in enumerate(self._kept, 1):
            check_read(f"{self.folder} holds a learning curve", together.read, read)
            if line > len(wanted) or list(together.shares) != list(wanted[line - 1]):
                raise self._journal.damaged(line)
        return {number: scored for together in self._kept for number, scored in together.shares.items()}

    def add(self, ended: float, read: Mapping[str, str], shares: Mapping[int, Scored]) -> None:
        """Keep shares that trained together.

        Args:
            ended: seconds of the curve.
            read: hashes of the rows and the model.
            shares: what they scored, by number.
        Raises:
            CheckpointError: the disk is full or the folder is gone.
        """
        self._journal.add(asdict(Together(ended, dict(read), dict(shares))))


def facts_of(checked: Checked, settings: Settings) -> dict[str, Any]:
    """Return what has to be the same when a curve goes on, before anything is read.

    Args:
        checked: the recipe.
        settings: of the curve.
    Returns:
        Plain values, those of the recipe by dotted key.
    """
    values = checked.resolved()
    values.pop("output")
    return {"format": _FORMAT, **flattened(values), **settings.model_dump(mode="json")}
