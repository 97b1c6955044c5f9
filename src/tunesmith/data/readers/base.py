"""What a reader is: it knows a file's columns and goes through its rows, one at a time."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from tunesmith.core.errors import DataError
from tunesmith.core.files import COMMON_ENCODINGS, is_encoding

_LOOKED = 1 << 16  # bytes of a file that are looked at

# Where a row stands (for example "line 7") and its values by column.
Row = tuple[str, dict[str, Any]]

Read = TypeVar("Read")


class Reader:
    """Base of every reader. A reader's file registers one subclass with `@register("readers")`.

    Args:
        path: the file or folder as the user wrote it, made absolute where it exists.
        encoding: character encoding of text files.
        max_characters: longest cell.
        columns: names of the columns of a file without a header; empty when the file names them.
    Raises:
        DataError: an encoding that Python does not know.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ()
    nameless: ClassVar[tuple[str, ...]] = ()  # suffixes of files that it reads without a header, columns given
    only_column: ClassVar[str | None] = None
    by_content: ClassVar[bool] = False  # whether `reads` looks into the source; such readers are asked first
    holds: ClassVar[str] = ""  # what its rows are, where that is no matter of guessing columns
    text_column: ClassVar[str | None] = None  # of such rows: what is read as their text,
    label_column: ClassVar[str | None] = None  # what as their label or labels,
    file_column: ClassVar[str | None] = None  # and which holds the path of an image or a sound
    shown: ClassVar[int] = 24  # how many such files a page shows
    mend: ClassVar[str] = "Fill them in, or drop them with data.empty=drop."  # what to do about empty cells

    def __init__(
        self, path: str, encoding: str = "utf-8", max_characters: int = 1_000_000, columns: Sequence[str] = ()
    ) -> None:
        if not is_encoding(encoding):
            raise DataError(f"encoding: '{encoding}' is no encoding that Python knows. {COMMON_ENCODINGS}")
        self.path = path
        self.encoding = encoding
        plain = codecs.lookup(encoding).name == "utf-8"
        self.codec = "utf-8-sig" if plain else encoding  # it reads files with and without a byte-order mark
        self.max_characters = max_characters
        self.columns = list(columns)
        self.wanted: list[str] = []  # columns that `want` named
        self.unreadable: list[dict[str, str]] | None = None  # a list gathers files that cannot be read
        self.skipped: list[str] = []  # files of other kinds, which readers of folders leave out

    @classmethod
    def reads(cls, path: str) -> bool:
        """Say whether this reader is for a path.

        Args:
            path: as the user wrote it.
        Returns:
            By default, whether the suffix is one of `suffixes`.
        """
        return path.lower().endswith(cls.suffixes) if cls.suffixes else False

    def rows(self) -> Iterator[Row]:
        """Go through the rows without holding them.

        Returns:
            (where it stands, values by column) for each row.
        """
        raise NotImplementedError

    def want(self, columns: Sequence[str]) -> None:
        """Say which columns will be looked at; readers that can may leave others out, if every one of these is there.

        Args:
            columns: their names; none for all.
        """
        self.wanted = list(columns)

    def chosen(self, names: Sequence[str]) -> list[str] | None:
        """Choose the columns to read.

        Args:
            names: of all columns of the source.
        Returns:
            Those that are wanted; None for all, so that a missing one can be told beside those that are there.
        """
        return self.wanted if self.wanted and set(self.wanted) <= set(names) else None

    def attempt(self, path: str | Path, read: Callable[[Any], Read]) -> Read | None:
        """Read the image or sound of a row.

        Args:
            path: of the file.
            read: takes the path.
        Returns:
            What it gives; None where the file cannot be read and such files are gathered in `unreadable`.
        Raises:
            DataError: the file cannot be read, and they are not.
        """
        try:
            return read(path)
        except DataError as error:
            if self.unreadable is None:
                raise
            self.unreadable.append({"file": str(path), "why": str(error).removeprefix(f"{path}: ")})
            return None


def steady_rows(reader: Reader) -> Iterator[Row]:
    """Go through a reader's rows, and refuse a file that changed meanwhile: half of it may be of another state.

    Args:
        reader: of a file or of anything else.
    Returns:
        Its rows.
    Raises:
        DataError: as the reader; and at the end where size or time of the file are others than at the beginning.
    """
    before = _state(reader.path)
    yield from reader.rows()
    after = _state(reader.path)
    if before != after:
        told = "it is gone" if after is None else f"{(before or after)[0]:,} bytes before, {after[0]:,} now"
        raise DataError(
            f"{reader.path} changed while it was read ({told}), so its rows may be of two states. Wait until it is "
            "written, or copy it, and start again."
        )


def _state(path: str) -> tuple[int, int] | None:
    """Size and time of a file; None for what is none."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return (found.st_size, found.st_mtime_ns) if Path(path).is_file() else None


def beginning(path: str, suffix: str) -> bytes:
    """Return how a file begins.

    Args:
        path: as the user wrote it.
        suffix: that it must end in.
    Returns:
        Its first 64 KiB; nothing where there is no such file.
    """
    if not path.lower().endswith(suffix) or not Path(path).is_file():
        return b""
    with open(path, "rb") as file:
        return file.read(_LOOKED)
