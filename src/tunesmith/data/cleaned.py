"""Texts changed while they are read, with what was changed where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from tunesmith.data.cleaning.base import Change
from tunesmith.data.examples import Columns, Examples, Lines, read_examples
from tunesmith.data.readers.base import Reader, Row


class Cleaned(Reader):
    """A reader whose texts are changed by steps, one row at a time.

    Args:
        inner: reads the file.
        columns: that hold texts.
        changes: the steps, in order.
    """

    def __init__(self, inner: Reader, columns: Sequence[str], changes: Sequence[Change]) -> None:
        super().__init__(inner.path, inner.encoding, inner.max_characters)
        self._inner, self._texts, self._changes = inner, columns, changes
        self.changed = {step.name: Lines() for step in changes}

    def rows(self) -> Iterator[Row]:
        """Go through the file's rows, changed."""
        for where, values in self._inner.rows():
            yield where, self._row(where, values)

    def _row(self, where: str, values: dict[str, Any]) -> dict[str, Any]:
        names = [name for name in self._texts if isinstance(values.get(name), str)]
        return {**values, **dict(zip(names, self._cells(where, [values[name] for name in names]), strict=True))}

    def _cells(self, where: str, cells: list[str]) -> list[str]:
        for step in self._changes:
            found = step.cells(cells)
            if found != cells:
                self.changed[step.name].append(where)
            cells = found
        return cells


def read_cleaned(
    reader: Reader, columns: Columns, drop_empty: bool = False, changes: Sequence[Change] = ()
) -> Examples:
    """Read a file as `read_examples` does, its texts changed.

    Args:
        reader: from `find_reader`.
        columns: which columns; labels, and what rows are split by, are not changed.
        drop_empty: drop rows with an empty text or label instead of refusing the file.
        changes: the steps, in order.
    Returns:
        The examples; `changed` says which rows.
    Raises:
        DataError: as `read_examples`; a text of which nothing is left counts as empty.
    """
    if not changes:
        return read_examples(reader, columns, drop_empty)
    texts = [name for name in columns.all() if name not in (columns.label, *columns.kept)]
    return with_changes(Cleaned(reader, texts, changes), columns, drop_empty)


def with_changes(reader: Cleaned, columns: Columns, drop_empty: bool) -> Examples:
    """Read a file through its changes, and note them.

    Args:
        reader: with the changes.
        columns: which columns.
        drop_empty: as for `read_cleaned`.
    Returns:
        The examples.
    """
    found = read_examples(reader, columns, drop_empty)
    return replace(found, changed={name: lines for name, lines in reader.changed.items() if len(lines)})


def clean_texts(texts: Sequence[str], changes: Sequence[Change]) -> list[str]:
    """Change the texts of one row.

    Args:
        texts: of the row.
        changes: the steps, in order.
    Returns:
        As many.
    """
    found = list(texts)
    for step in changes:
        found = step.cells(found)
    return found
