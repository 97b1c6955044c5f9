"""What a reader is: it knows a file's columns and goes through its rows, one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

# Where a row stands (for example "line 7") and its values by column.
Row = tuple[str, dict[str, Any]]


class Reader:
    """Base of every reader. A reader's file registers one subclass with `@register("readers")`.

    Args:
        path: the file or folder as the user wrote it, made absolute where it exists.
        encoding: character encoding of text files.
        max_characters: longest cell.
        columns: names of the columns of a file without a header; empty when the file names them.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ()
    nameless: ClassVar[tuple[str, ...]] = ()  # suffixes of files that it reads without a header, columns given
    only_column: ClassVar[str | None] = None

    def __init__(
        self, path: str, encoding: str = "utf-8", max_characters: int = 1_000_000, columns: Sequence[str] = ()
    ) -> None:
        self.path = path
        self.encoding = encoding
        plain = encoding.lower().replace("_", "-") in ("utf-8", "utf8")
        self.codec = "utf-8-sig" if plain else encoding  # it reads files with and without a byte-order mark
        self.max_characters = max_characters
        self.columns = list(columns)

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
