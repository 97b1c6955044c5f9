"""Examples on disk: read once, checked row by row, kept in an Arrow file that is mapped, not loaded."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith.core.arrow import number_column, text_column
from tunesmith.core.errors import DataError, nearest, unknown
from tunesmith.core.files import Scratch
from tunesmith.core.growing import full
from tunesmith.core.registry import components
from tunesmith.data.columns import CellTypes, mixed_columns
from tunesmith.data.readers.base import Reader, steady_rows

if TYPE_CHECKING:
    import pyarrow as pa  # it takes 35 MB, which a delta attached without a recipe does not need

_CHUNK = 4096


@dataclass(frozen=True)
class Columns:
    """Which columns to read and what they mean.

    Args:
        text: column of the text.
        label: column of the label; None when there is none to read.
        others: further columns that a template uses.
        kept: columns that rows are split, taught or weighed by; cleaning does not change them.
        nested: columns of lists or objects, as boxes or tags; `Examples.value` gives them back.
    """

    text: str
    label: str | None
    others: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    nested: tuple[str, ...] = ()

    def all(self) -> list[str]:
        """Return every column to read, each once."""
        names = [self.text, *([self.label] if self.label else []), *self.others, *self.kept, *self.nested]
        return list(dict.fromkeys(names))


@dataclass
class Examples:
    """Rows of one file.

    Args:
        path: where they came from.
        columns: what was read.
        table: the columns as text, memory-mapped. The text column stands also under "text".
        labels: (rows,), int32, a code per row into `label_names`; -1 without a label column.
        label_names: in order of first appearance.
        where: where each row stands in the file, for messages.
        dropped: where the rows stand that were dropped for an empty text or label.
        content_hash: of all texts and labels.
        changed: where the rows stand that cleaning changed, by step.
        mixed: sentences about columns whose cells are of several types, as texts and truth values.
    """

    path: str
    columns: Columns
    table: pa.Table
    labels: np.ndarray[Any, np.dtype[np.int32]]
    label_names: list[str]
    where: Sequence[str]
    dropped: list[str]
    content_hash: str
    changed: dict[str, Sequence[str]] = field(default_factory=dict)
    mixed: list[str] = field(default_factory=list)
    _folder: Any = field(repr=False, default=None)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def text(self, row: int) -> str:
        """Return one text.

        Args:
            row: 0 <= row < len(self).
        Returns:
            The text.
        """
        return str(self.table.column(self.columns.text)[row].as_py())

    def rows(self, index: Iterable[int] | None = None) -> Iterator[dict[str, str]]:
        """Go through rows as values by column, `text` standing for the text column too.

        Args:
            index: which rows; all when None.
        Returns:
            One mapping per row.
        """
        numbers = np.arange(len(self)) if index is None else np.fromiter(index, dtype=np.int64)
        for part, rows in self._by_part(numbers):
            for values in part.take(number_column(rows)).to_pylist():
                values.setdefault("text", values[self.columns.text])
                yield values

    def _by_part(self, numbers: np.ndarray[Any, np.dtype[np.int64]]) -> Iterator[tuple[pa.RecordBatch, Any]]:
        """Cut rows where they leave a part of the table: taken from all of it, all of it would be read."""
        parts = self.table.to_batches()
        starts = np.cumsum([0, *(len(part) for part in parts)])
        for begin in range(0, len(numbers), _CHUNK):
            block = numbers[begin : begin + _CHUNK]
            owners = np.searchsorted(starts, block, "right") - 1
            for rows in np.split(np.arange(len(block)), np.flatnonzero(np.diff(owners)) + 1):
                owner = int(owners[rows[0]])
                yield parts[owner], block[rows] - starts[owner]

    def value(self, row: int, column: str) -> Any:
        """Return a cell of a column of lists or objects.

        Args:
            row: 0 <= row < len(self).
            column: one of `columns.nested`.
        Returns:
            As the file has it.
        """
        return json.loads(self.table.column(column)[row].as_py())

    def label(self, row: int) -> str:
        """Return one row's label.

        Args:
            row: 0 <= row < len(self).
        Returns:
            Its name.
        """
        return self.label_names[self.labels[row]]


def path_text(path: str | Path) -> str:
    """Return a data path as text.

    Args:
        path: of a file or folder, or a hub name.
    Returns:
        It as text.
    Raises:
        DataError: something else, or what can be no file's name.
    """
    if not isinstance(path, str | Path):
        raise DataError(f"data is given as a path, not as {repr(path)[:80]}. Write rows to a file first, one JSON "
                        "object per line.")  # fmt: skip
    try:
        os.stat(path)
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) or error.errno == errno.ENAMETOOLONG:
            raise DataError(f"{str(path)[:60]!r}...: this can be no file's name. Data is given as a path.") from None
    return str(path)


def find_reader(
    path: str | Path, encoding: str = "utf-8", max_characters: int = 1_000_000, columns: Sequence[str] = ()
) -> Reader:
    """Choose the reader for a path and check that the file is there.

    Args:
        path: file, folder or hub name.
        encoding: of text files.
        max_characters: longest cell.
        columns: names of the columns of a file without a header; files of other kinds name their own.
    Returns:
        The reader.
    Raises:
        DataError: no such file, or no reader for it.
    """
    path, readers = path_text(path), components("readers")
    known = sorted(readers.values(), key=lambda reader: not reader.by_content)
    nameless = [reader for reader in readers.values() if columns and path.lower().endswith(reader.nameless or "\0")]
    for reader in [*nameless, *(reader for reader in known if reader.reads(path))]:
        if path.lower().endswith((*reader.suffixes, *reader.nameless)) and not Path(path).is_file():
            raise DataError(_missing(path))
        found: Reader = reader(path, encoding, max_characters, columns if reader in nameless else ())
        return found
    suffixes = sorted(suffix for reader in readers.values() for suffix in reader.suffixes)
    if not Path(path).exists():
        raise DataError(_missing(path))
    raise DataError(
        f"{path}: no reader for this kind of file. Readable: {', '.join(suffixes)}, a folder written by datasets, "
        "or a hub name owner/name."
    )


def _missing(path: str) -> str:
    if Path(path).is_symlink():
        return f"{path} is a link to {os.readlink(path)}, which is not there. Mend the link, or give the file itself."
    folder = Path(path).parent
    near = nearest(Path(path).name, [item.name for item in folder.iterdir()]) if folder.is_dir() else None
    hint = f" Did you mean {folder / near}?" if near else ""
    return f"there is no data file {path}.{hint}"


def read_examples(reader: Reader, columns: Columns, drop_empty: bool = False) -> Examples:
    """Read a file row by row into an Arrow file that stays on disk.

    Args:
        reader: from `find_reader`.
        columns: which columns, and what they mean.
        drop_empty: drop rows with an empty text or label instead of refusing the file.
    Returns:
        The examples.
    Raises:
        DataError: no rows, a missing column, empty or null cells.
    """
    collector = _Collector(reader.path, columns, reader.max_characters, type(reader).mend)
    reader.want(columns.all())
    for where, values in steady_rows(reader):
        collector.add(where, values)
    return collector.finish(drop_empty)


def from_texts(texts: Sequence[str], columns: Columns, where: str = "input") -> Examples:
    """Make examples of texts given in Python.

    Args:
        texts: one per row.
        columns: the text column's name is used.
        where: what to call the source in messages.
    Returns:
        The examples, without labels.
    Raises:
        DataError: an empty text, or what is no valid text.
    """
    collector = _Collector(where, Columns(columns.text, None), 10**9)
    for number, text in enumerate(texts, 1):
        check_text(text, f"text {number} of {len(texts)}")
        if not text.strip():
            raise DataError(f"text {number} of {len(texts)} is empty: give at least one visible character.")
        collector.add(f"text {number}", {columns.text: text})
    return collector.finish(drop_empty=False)


def check_text(text: Any, where: str) -> None:
    """Refuse what is no text, or holds half a character.

    Args:
        text: what was given.
        where: what to call it in messages.
    Raises:
        DataError: as said.
    """
    if not isinstance(text, str):
        raise DataError(f"{where}: a text, not {text!r}.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: character {error.start + 1} ({text[error.start]!r}) is half of one, so this is no valid text. "
            "Give it in UTF-8."
        ) from None


def _hashed(cell: str) -> bytes:
    """Encode a cell; the two characters that part cells and rows become bytes that UTF-8 never has."""
    return cell.encode("utf-8", "surrogatepass").replace(b"\x1f", b"\xff1").replace(b"\x1e", b"\xff0")


class _Collector:
    """Rows on their way from a reader to an Arrow file."""

    def __init__(self, path: str, columns: Columns, max_characters: int, mend: str = Reader.mend) -> None:
        import pyarrow as pa

        self.path, self.columns, self.limit, self.mend = path, columns, max_characters, mend
        self.names = columns.all()
        self.schema = pa.schema([(name, pa.large_string()) for name in self.names])
        self.folder = Scratch()
        self.file = self.folder.path / "rows.arrow"
        self.writer = pa.ipc.new_file(str(self.file), self.schema)
        self.chunk: dict[str, list[str]] = {name: [] for name in self.names}
        self.labels, self.codes = array("i"), dict[str, int]()
        self.where = Lines()
        self.types = dict[str, CellTypes]()  # of columns in which a cell was no text
        self.empty: list[str] = []
        self.seen = 0
        self.digest = hashlib.sha256()

    def add(self, where: str, values: dict[str, Any]) -> None:
        self.seen += 1
        if any(name not in values for name in self.names):
            missing = next(name for name in self.names if name not in values)
            raise DataError(f"{self.path}, {where}: {unknown('column', missing, map(str, values))}{self._key(missing)}")
        cells = [self._cell(values[name], name, where) for name in self.names]
        if any(not cell.strip() for cell in cells):
            name = next(name for name, cell in zip(self.names, cells, strict=True) if not cell.strip())
            self.empty.append(f"{where} ({name})")
            return
        self.where.append(where)
        self.digest.update(b"\x1f".join(map(_hashed, cells)) + b"\x1e")
        for name, cell in zip(self.names, cells, strict=True):
            self.chunk[name].append(cell)
            if cell is not values[name] or name in self.types:
                self._note_type(name, values[name], where)
        label = self.columns.label
        code = -1
        if label is not None:
            code = self.codes.setdefault(cells[self.names.index(label)], len(self.codes))
        self.labels.append(code)
        if len(self.chunk[self.names[0]]) >= _CHUNK:
            self._flush()

    def _note_type(self, name: str, value: Any, where: str) -> None:
        """Count a cell by its type from the first that is no text on; those before it were texts."""
        if name in self.columns.nested:
            return
        if name not in self.types:
            self.types[name] = CellTypes()
            if len(self.labels):
                self.types[name].add("", self.where[0], len(self.labels))
        self.types[name].add(value, where)

    def _key(self, column: str) -> str:
        if column in self.columns.others:
            return ". It is a field of prompt.template."
        if column in self.columns.kept:
            return ". Set data.group, data.time, data.soft_labels or data.row_weights to a column of the file."
        if column == self.columns.text:
            return ". Set data.text to the column that holds the text."
        return ". Set data.label to the column that holds the label." if column == self.columns.label else ""

    def _cell(self, value: Any, name: str, where: str) -> str:
        if value is None or value != value:  # None, NaN
            return ""
        if name in self.columns.nested and isinstance(value, dict | list):
            value = json.dumps(value, ensure_ascii=False)
        if isinstance(value, dict | list | bytes):
            raise DataError(
                f"{self.path}, {where}: column '{name}' holds a {type(value).__name__}; a text or a number is needed."
            )
        text = value if isinstance(value, str) else str(value)
        if len(text) > self.limit:
            raise DataError(
                f"{self.path}, {where}: column '{name}' holds {len(text):,} characters, more than {self.limit:,} "
                "(data.max_characters). If the cell is meant, raise data.max_characters."
            )
        return text

    def _flush(self) -> None:
        import pyarrow as pa

        arrays = [text_column(self.chunk[name], large=True) for name in self.names]
        try:
            self.writer.write_batch(pa.record_batch(arrays, schema=self.schema))
        except OSError as error:
            raise full(error) from None
        self.chunk = {name: [] for name in self.names}

    def finish(self, drop_empty: bool) -> Examples:
        import pyarrow as pa

        if self.empty and not drop_empty:
            shown = ", ".join(self.empty[:5]) + (", ..." if len(self.empty) > 5 else "")
            raise DataError(
                f"{self.path}: {len(self.empty)} of {self.seen} rows have an empty or null cell: {shown}. {self.mend}"
            )
        if not self.labels:
            raise DataError(
                f"{self.path} holds no examples"
                + (
                    ": every row was empty."
                    if self.seen
                    else ": there is a header at most. One row per example is needed."
                )
            )
        self._flush()
        self.writer.close()
        table = pa.ipc.open_file(pa.memory_map(str(self.file))).read_all()
        return Examples(
            path=self.path,
            columns=self.columns,
            table=table,
            labels=np.asarray(self.labels, dtype=np.int32),
            label_names=list(self.codes),
            where=self.where,
            dropped=self.empty,
            content_hash=self.digest.hexdigest(),
            mixed=mixed_columns(self.types, self.columns.text),
            _folder=self.folder,
        )


class Lines(Sequence[str]):
    """Where rows stand, kept as numbers: "line 7" for a million rows is 8 MB instead of 60.

    A word that changes on the way, as with several files, is kept with the row from which on it counts.
    """

    def __init__(self) -> None:
        self._words, self._starts = list[str](), list[int]()
        self._numbers = array("q")

    def append(self, where: str) -> None:
        """Add a row.

        Args:
            where: it stands: a word and a number.
        """
        word, _, number = where.rpartition(" ")
        if not self._words or word != self._words[-1]:
            self._words.append(word)
            self._starts.append(len(self._numbers))
        self._numbers.append(int(number))

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, row: Any) -> Any:
        number = self._numbers[row]
        return f"{self._words[bisect_right(self._starts, row % len(self)) - 1]} {number}"
