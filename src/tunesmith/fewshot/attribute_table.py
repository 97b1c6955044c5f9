"""Attribute tables: what is known of classes beforehand, seen ones and unseen ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.core.arrays import Array
from tunesmith.core.errors import DataError, RecipeError, nearest
from tunesmith.data.readers.delimited import Delimited
from tunesmith.recipe.lines import parse

_CLASS = "class"  # header of the first column of a CSV file


@dataclass(frozen=True)
class AttributeTable:
    """A value of every attribute for every class.

    Args:
        classes: names of C classes.
        attributes: names of A attributes.
        values: (C, A), 0 or 1, or other numbers.
        where: file it comes from, for messages.
    """

    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    values: Array
    where: str = "attribute table"

    @property
    def binary(self) -> bool:
        """Whether every value is 0 or 1."""
        return bool(np.isin(self.values, (0, 1)).all())

    def signatures(self, classes: Sequence[str]) -> Array:
        """Return the attributes of some classes.

        Args:
            classes: names, each in the table.
        Returns:
            (classes, A).
        """
        return self.values[[self.classes.index(name) for name in classes]]

    def check(self, seen: Sequence[str], unseen: Sequence[str]) -> None:
        """Refuse a table that does not fit the classes, or cannot tell unseen ones apart.

        Args:
            seen: classes with examples.
            unseen: classes without.
        Raises:
            DataError: a class is seen and unseen, missing in the table, or in the table alone; or two classes have the
                same attributes and one of them is unseen.
        """
        both = sorted(set(seen) & set(unseen))
        if both:
            raise DataError(f"the class '{both[0]}' is given as seen and as unseen; it is one of the two.")
        if not unseen or len(seen) < 2:
            raise DataError(
                f"{len(seen)} seen and {len(unseen)} unseen classes: attributes are learned from at least two seen "
                "classes, for at least one unseen class."
            )
        self.check_classes([*seen, *unseen])
        self._check_apart([*seen, *unseen], set(unseen))

    def check_classes(self, given: Sequence[str]) -> None:
        """Refuse a table that lacks a class, or has one that the data lacks.

        Args:
            given: the data's classes.
        Raises:
            DataError: as said, with the nearest name.
        """
        missing = [name for name in given if name not in self.classes]
        if missing:
            near = nearest(missing[0], list(self.classes))
            hint = f" Did you mean '{near}'?" if near else ""
            raise DataError(
                f"{self.where}: the data has the class '{missing[0]}', which the table lacks ({len(missing)} such "
                f"classes).{hint} Add a row for it."
            )
        foreign = [name for name in self.classes if name not in given]
        if foreign:
            raise DataError(
                f"{self.where}: the table has the class '{foreign[0]}', which the data lacks ({len(foreign)} such "
                "classes): nothing could be learned or tested. Remove its row, or name it among the unseen classes."
            )

    def alike(self, given: Sequence[str]) -> list[tuple[str, str]]:
        """Find classes that have the same value in every attribute.

        Args:
            given: names, each in the table.
        Returns:
            Each class that is like an earlier one, behind that one.
        """
        first: dict[tuple[float, ...], str] = {}
        rows = zip(given, self.signatures(given), strict=True)
        firsts = [(first.setdefault(tuple(row.tolist()), name), name) for name, row in rows]
        return [(other, name) for other, name in firsts if other != name]

    def _check_apart(self, given: Sequence[str], unseen: set[str]) -> None:
        for other, name in self.alike(given):
            if name in unseen or other in unseen:
                raise DataError(
                    f"{self.where}: the classes '{other}' and '{name}' have the same value in every attribute, so "
                    "nothing could tell them apart. Add an attribute in which they differ."
                )


def read_table(path: str | Path) -> AttributeTable:
    """Read a table of classes and attributes.

    A CSV file has one row per class: its name under `class`, then a number per attribute. A YAML file is a mapping of
    classes, each a mapping of attributes to numbers.

    Args:
        path: `.csv`, `.yaml` or `.yml`.
    Returns:
        The table.
    Raises:
        DataError: the file cannot be read, a value is no number, an attribute is missing or the same for all classes.
    """
    place = Path(path).expanduser()
    if not place.is_file():
        raise DataError(f"there is no attribute table {place}. Give a .csv, .yaml or .yml file (attributes.table).")
    if place.suffix.lower() not in (".csv", ".yaml", ".yml"):
        raise DataError(f"{place}: an attribute table is a .csv, .yaml or .yml file.")
    rows = _of_csv(place) if place.suffix.lower() == ".csv" else _of_yaml(place)
    return make_table(rows, str(place))


def _of_csv(place: Path) -> list[tuple[str, dict[str, Any]]]:
    rows = [values for _, values in Delimited(str(place)).rows()]
    if rows and _CLASS not in rows[0]:
        raise DataError(f"{place}: the header has no column '{_CLASS}'; it names the class of a row.")
    return [(str(row.pop(_CLASS)).strip(), row) for row in rows]


def _of_yaml(place: Path) -> list[tuple[str, dict[str, Any]]]:
    try:
        text = place.read_text(encoding="utf-8-sig")
    except UnicodeError as error:
        raise DataError(f"{place} is not in UTF-8: {error}.") from None
    try:
        values, _ = parse(text, str(place), "an attribute table", "lost card: {card: 1, money: 0}")
    except RecipeError as error:
        raise DataError(str(error)) from None
    if not all(isinstance(own, Mapping) for own in values.values()):
        raise DataError(f"{place}: a mapping of classes is needed, each a mapping of attributes to numbers.")
    return [(str(name), dict(own)) for name, own in values.items()]


def make_table(rows: Iterable[tuple[str, Mapping[str, Any]]], where: str = "attribute table") -> AttributeTable:
    """Make a table of values given in Python.

    Args:
        rows: class and its attributes' values.
        where: what to call the table in messages.
    Returns:
        The table.
    Raises:
        DataError: as `read_table`.
    """
    rows = list(rows)
    if not rows or not rows[0][1]:
        raise DataError(f"{where} is empty: it needs a row per class and at least one attribute.")
    names, attributes = [name for name, _ in rows], list(rows[0][1])
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{where}: the class '{twice}' has two rows; keep one.")
    for name, own in rows:
        differing = set(own) ^ set(attributes)
        if differing:
            raise DataError(
                f"{where}: not every class has a value of '{sorted(map(str, differing))[0]}', see '{name}'."
            )
    values = np.array([[_number(own[key], name, key, where) for key in attributes] for name, own in rows])
    constant = [attributes[column] for column in np.flatnonzero(np.ptp(values, axis=0) == 0)]
    if constant:
        raise DataError(
            f"{where}: the attribute '{constant[0]}' is the same for all classes ({len(constant)} such attributes), so "
            "it tells nothing. Remove it."
        )
    return AttributeTable(tuple(names), tuple(map(str, attributes)), values, where)


def _number(value: Any, name: str, attribute: str, where: str) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise DataError(
            f"{where}: class '{name}', attribute '{attribute}': {value!r} is no number. Write 0, 1 or a number."
        )
    return found
