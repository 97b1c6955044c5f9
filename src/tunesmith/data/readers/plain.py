"""Plain text, one example per line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.data.readers.base import Reader, Row
from tunesmith.data.readers.delimited import not_decodable


@register("readers")
class Plain(Reader):
    """One text per line, without labels; for predictions."""

    name: ClassVar[str] = "plain"
    suffixes: ClassVar[tuple[str, ...]] = (".txt",)
    only_column: ClassVar[str | None] = "text"

    def rows(self) -> Iterator[Row]:
        """Go through the lines; blank ones are skipped.

        Returns:
            ("line 7", {"text": ...}) for each line.
        Raises:
            DataError: not in the encoding.
        """
        try:
            with open(self.path, encoding=self.codec) as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield f"line {number}", {"text": line.rstrip("\n")}
        except UnicodeError as error:
            raise not_decodable(self.path, self.encoding, error) from None
