"""Texts changed while they are read, with what was changed where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from tunesmith.core.errors import DataError
from tunesmith.core.progress import Progress
from tunesmith.data.cleaning.base import Change
from tunesmith.data.examples import Columns, Examples, Lines, read_examples
from tunesmith.data.readers.base import Reader, Row

_ROWS = 512  # that a step changes at once


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

    def want(self, columns: Sequence[str]) -> None:
        """Say it to the reader inside."""
        self._inner.want(columns)

    def rows(self) -> Iterator[Row]:
        """Go through the file's rows, changed, a few hundred at a time."""
        slow = [step.name for step in self._changes if step.reads_model]
        with Progress(None if slow else False).stage(f"{', '.join(slow)} of {self.path}", None, "rows") as bar:
            inner = self._inner.rows()
            while rows := list(islice(inner, _ROWS)):
                yield from self._changed(rows)
                bar(len(rows))

    def _changed(self, rows: Sequence[Row]) -> Iterator[Row]:
        cells = [self.texts(values) for _, values in rows]
        for step in self._changes:
            found = step.rows(cells)
            for (where, _), before, after in zip(rows, cells, found, strict=True):
                if after != before:
                    self.changed[step.name].append(where)
            cells = found
        for (where, values), some in zip(rows, cells, strict=True):
            yield where, self.with_texts(values, some)

    def texts(self, values: dict[str, Any]) -> list[str]:
        """Return what of a row is changed.

        Args:
            values: of the row; a number counts as it is written, for it is read so.
        Returns:
            Its texts.
        """
        return [str(values[name]) for name in self._texts if _is_read(values.get(name))]

    def with_texts(self, values: dict[str, Any], texts: list[str]) -> dict[str, Any]:
        """Put changed texts into a row.

        Args:
            values: of the row.
            texts: in the order of `texts`.
        Returns:
            The row with them; a number that no step changed stays one.
        """
        names = (name for name in self._texts if _is_read(values.get(name)))
        changed = {name: text for name, text in zip(names, texts, strict=True) if text != str(values[name])}
        return {**values, **changed}


def _is_read(value: Any) -> bool:
    """Whether a cell is a text or is read as one: not an empty one, nor one that is refused."""
    return value is not None and value == value and not isinstance(value, dict | list | bytes)  # NaN is not itself


def read_cleaned(
    reader: Reader, columns: Columns, drop_empty: bool = False, changes: Sequence[Change] = ()
) -> Examples:
    """Read a file as `read_examples` does, its texts changed.

    Args:
        reader: from `find_reader`.
        columns: which columns; labels, and columns to be kept, are not changed.
        drop_empty: drop rows with an empty text or label instead of refusing the file.
        changes: the steps, in order.
    Returns:
        The examples; `changed` says which rows.
    Raises:
        DataError: as `read_examples`; a text of which nothing is left counts as empty. Or a column is kept and read.
    """
    if not changes:
        return read_examples(reader, columns, drop_empty)
    both = next((name for name in (columns.text, *columns.others) if name in columns.kept), None)
    if both is not None:
        raise DataError(
            f"{reader.path}: rows are split, taught or weighed by the column '{both}', which the model reads too. Such "
            "columns stay as they are, so data.cleaning would pass it by. Copy it under another name, for one of the "
            "two, or leave data.cleaning out."
        )
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
