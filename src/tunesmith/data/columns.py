"""What a file's columns hold, and which of them are text and label."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_TEXTS = ("text", "sentence", "utterance", "content", "review", "question", "query", "message", "body", "document")
_LABELS = ("label", "category", "class", "intent", "target", "sentiment", "topic", "tag", "y")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_DAY = re.compile(r"[0-9]{4}-[01]?[0-9]-[0-3]?[0-9](?:[T ][0-9:.+Z-]*)?")
_LARGEST = 1e300  # number that is measured
_MOST = 1000  # different values that are told apart; labels have fewer


class CellTypes:
    """Of which types the cells of one column are, before they are read as texts: JSON tells 3, "3" and true apart."""

    def __init__(self) -> None:
        self._counts: dict[type[Any], int] = {}
        self._first: dict[type[Any], tuple[str, str, str]] = {}

    def add(self, value: Any, where: str, count: int = 1) -> None:
        """Count a cell, or several of one type.

        Args:
            value: of it, not empty.
            where: it stands, or the first of them.
            count: of cells.
        """
        kind = type(value)
        if kind not in self._counts:
            name = "text" if kind is str else kind_of(value)
            self._first[kind] = (name, where, f", read as '{value}'" if kind is bool else "")
            self._counts[kind] = 0
        self._counts[kind] += count

    def counts(self) -> dict[str, int]:
        """Return how many cells are of each type.

        Returns:
            Counts by type, the most frequent first; whole and other numbers are one type.
        """
        found = Counter[str]()
        for kind, count in self._counts.items():
            found[self._first[kind][0]] += count
        return dict(found.most_common())

    def sentence(self, column: str, texts: bool = False) -> str:
        """Say that a column holds cells of several types.

        Args:
            column: its name.
            texts: whether all of them should be texts.
        Returns:
            A sentence with the first place of the rarer types; empty where there is nothing to say.
        """
        counts = self.counts()
        if not counts or (len(counts) == 1 and (not texts or "text" in counts)):
            return ""
        places = {name: (where, read) for name, where, read in reversed(self._first.values())}
        parts = []
        for number, (name, count) in enumerate(counts.items()):
            (where, read), first = places[name], "the first in " if count > 1 else ""
            place = f" ({first}{where}{read})" if number or len(counts) == 1 else ""
            parts.append(f"{count:,} {name}{'s' * (count > 1)}{place}")
        told = " and ".join([", ".join(parts[:-1]), parts[-1]]) if parts[1:] else f"{parts[0]} and no text"
        return f"column '{column}' holds {told}."


def mixed_columns(columns: Mapping[str, CellTypes], text: str | None = None) -> list[str]:
    """Say which columns hold cells of several types.

    Args:
        columns: what each one's cells are, by its name.
        text: column that should hold nothing but texts.
    Returns:
        A sentence for each of them.
    """
    found = (types.sentence(name, texts=name == text) for name, types in columns.items())
    return [sentence for sentence in found if sentence]


@dataclass
class ColumnFacts:
    """What one column holds.

    Args:
        name: of the column.
        kinds: cells by kind: text, number, date, truth value, list, object.
        first: where a cell of each kind stands first.
        missing: empty or null cells. [count]
        characters: of all texts together. [count]
        values: different values, at most 1,001 of them.
        least: of its numbers; infinite where there is none.
        most: of its numbers.
        total: of its numbers.
        numbers: cells that hold one, those written as text aside. [count]
        types: what its cells are before they are read.
        own_name: where a cell holds the name of the column, first.
    """

    name: str
    kinds: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    missing: int = 0
    characters: int = 0
    values: set[str] = field(default_factory=set)
    least: float = math.inf
    most: float = -math.inf
    total: float = 0.0
    numbers: int = 0
    types: CellTypes = field(default_factory=CellTypes)
    own_name: str | None = None

    def add(self, value: Any, where: str) -> None:
        """Look at one cell.

        Args:
            value: of it.
            where: it stands.
        """
        if value is None or value != value or (isinstance(value, str) and not value.strip()):
            self.missing += 1
            return
        kind = kind_of(value)
        self.types.add(value, where)
        if kind not in self.kinds:
            self.first[kind] = where
        self.kinds[kind] += 1
        if self.own_name is None and value == self.name:
            self.own_name = where
        if isinstance(value, str):
            self.characters += len(value)
        elif kind == "number" and abs(value) < _LARGEST:  # larger ones cannot be added up
            self.least, self.most, self.total = min(self.least, value), max(self.most, value), self.total + value
            self.numbers += 1
        if len(self.values) <= _MOST:
            self.values.add(str(value)[:200])

    @property
    def filled(self) -> int:
        """Cells that hold something. [count]"""
        return self.kinds.total()

    @property
    def mean(self) -> float:
        """Mean length of its cells. [characters]"""
        return self.characters / max(1, self.filled)

    @property
    def mixed(self) -> bool:
        """Whether its cells are of several types, or texts of several kinds; texts may look like anything."""
        return len(self.types.counts()) > 1 or (len(self.kinds) > 1 and "text" not in self.kinds)

    def plain(self) -> dict[str, Any]:
        """Return the facts as plain values."""
        different = len(self.values)
        return {
            "name": self.name,
            "kinds": dict(self.kinds.most_common()),
            "types": self.types.counts(),
            "missing": self.missing,
            "different": different if different <= _MOST else f"more than {_MOST:,}",
            "constant": different == 1 and self.filled > 1 and not self.missing,
            "mixed": self.mixed,
            "first": self.first if self.mixed else {},
            "said": self.types.sentence(self.name),
            "own_name": self.own_name,
            **(
                {}
                if math.isinf(self.least)
                else {"least": self.least, "most": self.most, "mean": self.total / self.numbers}
            ),
        }


def kind_of(value: Any) -> str:
    """Name what a cell holds.

    Args:
        value: of the cell, not empty.
    Returns:
        text, number, date, truth value, list or object; of a text what all of it reads as.
    Example:
        >>> [kind_of(value) for value in ("a", "1.5", 2, "2024-05-01", True, [1])]
        ['text', 'number', 'number', 'date', 'truth value', 'list']
    """
    if isinstance(value, str):
        if value[:1] in "0123456789+-." and len(value) < 40:
            return "number" if _NUMBER.fullmatch(value) else "date" if _DAY.fullmatch(value) else "text"
        return "text"
    if isinstance(value, bool):
        return "truth value"
    if isinstance(value, int | float):
        return "number"
    return "list" if isinstance(value, list | tuple) else "object" if isinstance(value, dict) else type(value).__name__


def guess_columns(columns: list[ColumnFacts], rows: int) -> tuple[str | None, str | None, list[str]]:
    """Guess which column is the text and which the label.

    Args:
        columns: in the order of the file.
        rows: that they were read from. [count]
    Returns:
        Text column, label column, and why, in words.
    """
    mostly = [one for one in columns if one.kinds["text"] > one.filled / 2]
    texts = [one for one in mostly if len(one.values) > 1]
    named = [one for one in texts or mostly if one.name.lower() in _TEXTS]
    text = max(named or texts, key=lambda one: one.mean, default=None)
    why = []
    if text is not None:
        reason = "by its name" if named else "its texts are the longest"
        why.append(f"text is '{text.name}': {reason} ({text.mean:.0f} characters on average)")
    fitting = [one for one in columns if one is not text and 2 <= len(one.values) <= max(2, min(_MOST, rows // 2))
               and not {"list", "object"} & set(one.kinds)]  # fmt: skip
    called = [one for one in fitting if one.name.lower() in _LABELS]
    likely = called or [one for one in fitting if one.kinds["text"] and len(one.values) <= max(2, rows // 5)]
    label = min(likely, key=lambda one: len(one.values), default=None)
    if label is not None:
        reason = "by its name" if called else "few different values"
        why.append(f"label is '{label.name}': {reason} ({len(label.values)} in the first {rows:,} rows)")
    return (text.name if text else None, label.name if label else None, why)
