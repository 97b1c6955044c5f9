"""Unlabelled texts: a file that is one long text, or rows that are texts of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from tunesmith.data.readers.base import Reader, Row
from tunesmith.data.readers.delimited import not_decodable

_PIECES = 256  # of a file, at least: fine enough to hold out a share
_PIECE = 64, 4096  # characters, fewest and most: coarse enough to tokenise fast


class WholeFile(Reader):
    """A text file as one text, in pieces that end with a line.

    Args:
        path: of the file.
        encoding: of it.
        max_characters: not used: a file has no cells.
    """

    name: ClassVar[str] = "whole-file"

    def rows(self) -> Iterator[Row]:
        """Go through the pieces; put together they are the file, every line's end a line feed.

        Returns:
            ("piece 7", {"text": ...}) for each.
        Raises:
            DataError: not in the encoding.
        """
        number, lines, length = 1, list[str](), 0
        piece = max(_PIECE[0], min(_PIECE[1], Path(self.path).stat().st_size // _PIECES))
        try:
            with open(self.path, encoding=self.codec) as file:
                for line in file:
                    lines.append(line)
                    length += len(line)
                    if length >= piece and not line.isspace():
                        yield f"piece {number}", {"text": "".join(lines)}
                        number, lines, length = number + 1, [], 0
        except UnicodeError as error:
            raise not_decodable(self.path, self.encoding, error) from None
        if lines:
            yield f"piece {number}", {"text": "".join(lines)}
