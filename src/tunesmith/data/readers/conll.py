"""CoNLL: one token per line with its tags, a blank line behind every sentence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from tunesmith.core.errors import DataError
from tunesmith.core.registry import register
from tunesmith.data.readers.base import Reader, Row
from tunesmith.data.readers.delimited import not_decodable

_UNIVERSAL = 10  # columns of CoNLL-U


@register("readers")
class Conll(Reader):
    """Sentences as lists of tokens and of tags: the first column and the last one, in CoNLL-U word and its class."""

    name: ClassVar[str] = "conll"
    suffixes: ClassVar[tuple[str, ...]] = (".conll", ".bio", ".iob", ".conllu")
    holds: ClassVar[str] = "sentences with tags"
    text_column: ClassVar[str | None] = "tokens"
    label_column: ClassVar[str | None] = "tags"

    def rows(self) -> Iterator[Row]:
        """Go through the sentences.

        Returns:
            ("line 7", where it begins, {"tokens": [...], "tags": [...]}) for each.
        Raises:
            DataError: lines of different numbers of columns, or not in the encoding.
        """
        self._width, begin = 0, 0
        pairs: list[tuple[str, str]] = []
        try:
            with open(self.path, encoding=self.codec) as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        begin = begin if pairs else number
                        pairs += self._pair(line.rstrip("\r\n"), number)
                    elif pairs:
                        yield _row(begin, pairs)
                        pairs = []
        except UnicodeError as error:
            raise not_decodable(self.path, self.encoding, error) from None
        if pairs:
            yield _row(begin, pairs)

    def _pair(self, line: str, number: int) -> list[tuple[str, str]]:
        """Read a token and its tag; nothing of a comment, a mark between documents, or a span of CoNLL-U."""
        universal = self.path.lower().endswith(".conllu")
        if line.startswith("-DOCSTART-") or (universal and line.startswith("#")):
            return []
        cells = line.split("\t") if "\t" in line else line.split()
        self._width = self._width or (_UNIVERSAL if universal else len(cells))
        if len(cells) != self._width or self._width < 2:
            wanted = f"as many as the lines before, {self._width}" if self._width > 1 else "at least a token and a tag"
            raise DataError(
                f"{self.path}, line {number}: {len(cells)} columns; {wanted}, are needed. Columns are separated by "
                "tabs or spaces, sentences by a blank line."
            )
        if not universal:
            return [(cells[0], cells[-1])]
        return [(cells[1], cells[3])] if cells[0].isdigit() else []


def _row(begin: int, pairs: list[tuple[str, str]]) -> Row:
    return f"line {begin}", {"tokens": [token for token, _ in pairs], "tags": [tag for _, tag in pairs]}
