"""CSV and TSV."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator
from typing import ClassVar, TextIO

from tunesmith.core.errors import DataError
from tunesmith.core.registry import register
from tunesmith.data.readers.base import Reader, Row


@register("readers")
class Delimited(Reader):
    """Comma- or tab-separated text with a header row, or with data.columns without one."""

    name: ClassVar[str] = "delimited"
    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv")
    nameless: ClassVar[tuple[str, ...]] = (".csv", ".tsv", ".txt")

    def rows(self) -> Iterator[Row]:
        """Go through the rows; quoted cells may hold line breaks, but in a .txt file a quote is a sign as any other.

        Returns:
            ("line 7", values) for each row.
        Raises:
            DataError: empty, wrong encoding, a row with more or fewer cells, a cell that is too long.
        """
        csv.field_size_limit(self.max_characters)
        try:
            with open(self.path, encoding=self.codec, newline="") as file:
                yield from self._rows(file)
        except UnicodeError as error:
            raise not_decodable(self.path, self.encoding, error) from None

    def _rows(self, file: TextIO) -> Iterator[Row]:
        delimiter = "," if self.path.lower().endswith(".csv") else "\t"
        plain = self.path.lower().endswith(".txt")
        if self.columns and file.read(1) != "\ufeff":
            file.seek(0)
        reader = csv.reader(
            file, delimiter=delimiter, strict=True, quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL
        )
        line = 1
        try:
            header = self.columns or self._header(next(reader, None))
            line = reader.line_num + 1
            for cells in reader:
                if cells == header and len(header) > 1:
                    raise self._header_again(line)
                if cells:
                    yield f"line {line}", self._named(header, cells, line)
                line = reader.line_num + 1
        except csv.Error as error:
            raise self._explained(error, line) from None

    def _header(self, header: list[str] | None) -> list[str]:
        if not header:
            raise DataError(f"{self.path} is empty. It needs a header row and one row per example.")
        header[0] = header[0].removeprefix("\ufeff")
        if len(header) == 1 and any(sign in header[0] for sign in ";\t|"):
            raise DataError(
                f"{self.path}: the header is one column, '{header[0]}'. Cells are separated by commas in a "
                ".csv and by tabs in a .tsv file; save it so."
            )
        if len(set(header)) < len(header):
            twice = next(name for name in header if header.count(name) > 1)
            raise DataError(f"{self.path}: the column '{twice}' stands twice in the header; rename one.")
        return header

    def _header_again(self, line: int) -> DataError:
        if self.columns and line == 1:
            return DataError(f"{self.path}: its first row is a header, so data.columns is not needed. Leave it out.")
        return DataError(
            f"{self.path}, line {line}: the header stands there again, as where files were put together. Take it out."
        )

    def _named(self, header: list[str], cells: list[str], line: int) -> dict[str, str]:
        if len(cells) != len(header):
            who = "data.columns" if self.columns else "the header"
            hint = (
                "Cells are separated by tabs, one row per line."
                if self.path.lower().endswith(".txt")
                else "A cell that holds the separator or a line break must stand in double quotes."
            )
            raise DataError(
                f"{self.path}, line {line}: {len(cells)} cells, but {who} names {len(header)} columns. {hint}"
            )
        return dict(zip(header, cells, strict=True))

    def _explained(self, error: csv.Error, line: int) -> DataError:
        if "field larger" in str(error):
            return too_long(self.path, f"the row that begins in line {line}", self.max_characters)
        return DataError(f"{self.path}, the row that begins in line {line}: {error}. Check its quotes.")


def not_decodable(path: str, encoding: str, error: UnicodeError) -> DataError:
    """Word the error for bytes that are not in the encoding.

    Args:
        path: the file.
        encoding: that was tried.
        error: what Python said.
    Returns:
        The error to raise.
    """
    if not isinstance(error, UnicodeDecodeError):  # UTF-16 without a byte-order mark
        return DataError(
            f"{path} is not {encoding}: {error}. Say what it is, for example data.encoding=utf-16-le or "
            "data.encoding=utf-8."
        )
    found = error.object[error.start : error.start + 1].hex()
    with open(path, "rb") as file:
        if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            return DataError(f"{path} is not {encoding}: it begins as UTF-16 does. Say so: data.encoding=utf-16.")
        file.seek(0)
        decoder, before = codecs.getincrementaldecoder(encoding)(), 0  # it keeps a character cut by a block's end
        for block in iter(lambda: file.read(1 << 20), b""):
            try:
                decoder.decode(block)
                before += block.count(b"\n")
            except UnicodeDecodeError as inner:
                before += inner.object[: inner.start].count(b"\n")
                break
    return DataError(
        f"{path}, near line {before + 1}: byte 0x{found} is not {encoding}. Save the file as UTF-8, or say what it "
        "is, for example data.encoding=latin-1 or data.encoding=gb18030."
    )


def too_long(path: str, where: str, limit: int) -> DataError:
    """Word the error for a cell above the limit.

    Args:
        path: the file.
        where: the row.
        limit: most characters allowed.
    Returns:
        The error to raise.
    """
    return DataError(
        f"{path}, {where}: a cell holds more than {limit:,} characters (data.max_characters). Most often a quote was "
        "not closed and swallowed the rest of the file; if the cell is meant, raise data.max_characters."
    )
