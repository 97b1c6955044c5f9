"""What a cleaning step is: it changes texts wherever they are read, or it drops rows that would train."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tunesmith.core.named import build_named
from tunesmith.core.settings import Component
from tunesmith.data.personal import FindNames


@dataclass(frozen=True)
class Rows:
    """Training rows as a filter sees them.

    Args:
        texts: one per row; of a conversation, all its messages.
        labels: (rows,), a code per row; all 0 for tasks without labels.
        label_names: of the codes.
        seed: for what a step draws.
        features: gives the frozen model's features, (rows, D); None where no model is at hand.
    """

    texts: Sequence[str]
    labels: np.ndarray[Any, np.dtype[np.int64]]
    label_names: Sequence[str] = ()
    seed: int = 0
    features: Callable[[], np.ndarray[Any, Any]] | None = None


@dataclass(frozen=True)
class Verdict:
    """What a filter decides about one row.

    Args:
        why: in a few words.
        what: "dropped", "relabelled", "weighted" or "listed", which leaves the row as it is.
        label: code of the new label of a relabelled row.
        other: row that the reason ends with.
        weight: factor of a weighted row's loss.
    """

    why: str
    what: str = "dropped"
    label: int | None = None
    other: int | None = None
    weight: float = 1.0


class Cleaning(Component):
    """Base of every step. A step's file registers one subclass of Change or Filter with `@register("cleaning")`."""

    name: ClassVar[str]
    where: ClassVar[str]  # which rows it sees, for lists and docs
    of: ClassVar[str] = "text"  # what its rows must be; "rows" where it does not matter


class Change(Cleaning):
    """A step that changes texts: in every split, and in what a run is asked later."""

    where: ClassVar[str] = "changes texts of every split and of what a run is asked"

    def text(self, text: str) -> str:
        """Change one text.

        Args:
            text: any.
        Returns:
            The text to read instead, the same for the same text.
        """
        raise NotImplementedError

    def cells(self, cells: Sequence[str]) -> list[str]:
        """Change the texts of one row.

        Args:
            cells: of the row: its columns, or the messages of a conversation.
        Returns:
            As many.
        """
        return [self.text(cell) for cell in cells]

    def ready(self, finder: Callable[[str], FindNames]) -> Change:
        """Get ready to change texts.

        Args:
            finder: loads a model that finds names, by its folder or hub name.
        Returns:
            The step itself, or one that has what it needs.
        """
        return self

    @property
    def reads_model(self) -> bool:
        """Whether a model reads every text, which takes time."""
        return False

    def rows(self, rows: Sequence[Sequence[str]]) -> list[list[str]]:
        """Change the texts of several rows.

        Args:
            rows: the texts of each, as for `cells`.
        Returns:
            The same as `cells` of each.
        """
        return [self.cells(cells) for cells in rows]


class Filter(Cleaning):
    """A step that drops rows: of the training rows only, so that scores stay those of the data as they are."""

    where: ClassVar[str] = "drops training rows"
    needs_features: ClassVar[bool] = False

    def judge(self, rows: Rows) -> dict[int, Verdict]:
        """Find rows that should not train as they are.

        Args:
            rows: that would train.
        Returns:
            Verdict by row number.
        """
        raise NotImplementedError


def build_steps(given: Sequence[Mapping[str, Any]]) -> list[Cleaning]:
    """Build the steps of a checked recipe.

    Args:
        given: `data.cleaning`: name and settings of each.
    Returns:
        In their order.
    """
    return [build_named("cleaning", one) for one in given]
