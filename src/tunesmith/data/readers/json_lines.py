"""JSON Lines and JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any, ClassVar

from tunesmith.core.errors import DataError
from tunesmith.core.registry import register
from tunesmith.data.readers.base import Reader, Row
from tunesmith.data.readers.delimited import not_decodable


class _TwiceError(Exception):
    """A key that stands twice in an object."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(next(name for name in names if names.count(name) > 1))
    return found


@register("readers")
class JsonLines(Reader):
    """One JSON object per line, or a JSON file that holds a list of objects or, too, one per line."""

    name: ClassVar[str] = "json"
    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".json", ".ndjson")

    def rows(self) -> Iterator[Row]:
        """Go through the objects; a .json file is held in memory, lines are not.

        Returns:
            ("line 7" or "entry 7", the object) for each.
        Raises:
            DataError: not JSON, not an object, or not UTF-8.
        """
        try:
            yield from self._list() if self._holds_list() else self._lines()
        except UnicodeError as error:
            raise not_decodable(self.path, self.encoding, error) from None

    def _holds_list(self) -> bool:
        """Say how a .json file is read: as a list, or as lines where its first line is an object by itself."""
        if not self.path.lower().endswith(".json"):
            return False
        with open(self.path, encoding=self.codec) as file:
            first = next((line for line in file if line.strip()), "")
        try:
            return not isinstance(json.loads(first), dict)
        except (ValueError, RecursionError):  # told where the whole is read
            return True

    def _lines(self) -> Iterator[Row]:
        with open(self.path, encoding=self.codec) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"line {number}", self._object(self._parsed(line, f", line {number}"), f"line {number}")

    def whole(self) -> Any:
        """Read a file that holds one value.

        Returns:
            The value.
        Raises:
            DataError: not JSON, or not in the encoding.
        """
        try:
            with open(self.path, encoding=self.codec) as file:
                return self._parsed(file.read(), "")
        except UnicodeError as error:
            raise not_decodable(self.path, self.encoding, error) from None

    def _list(self) -> Iterator[Row]:
        values = self.whole()
        if not isinstance(values, list):
            raise DataError(f"{self.path}: expected a list of objects, found {type(values).__name__}.")
        for number, value in enumerate(values, 1):
            yield f"entry {number}", self._object(value, f"entry {number}")

    def _parsed(self, text: str, where: str) -> Any:
        try:
            return json.loads(text, object_pairs_hook=_once)
        except RecursionError:
            raise DataError(f"{self.path}{where}: lists or objects stand too deep inside each other.") from None
        except _TwiceError as error:
            raise DataError(
                f"{self.path}{where}: the column or key '{error}' stands twice in one object; rename one."
            ) from None
        except json.JSONDecodeError as error:
            hint = " A file with one object per line is named .jsonl." if not where else ""
            where = where or f", line {error.lineno}"
            raise DataError(f"{self.path}{where}: not valid JSON: {error.msg}.{hint}") from None
        except ValueError:  # what Python refuses to read as a number
            raise DataError(
                f"{self.path}{where}: a number has more than {sys.get_int_max_str_digits():,} digits. Write it in "
                "quotes if it is a name."
            ) from None

    def _object(self, value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise DataError(f"{self.path}, {where}: expected an object with columns, found {type(value).__name__}.")
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{self.path}, {where}: {error.object[error.start : error.end]!r} is half of a character, so the line "
                "is no valid text. Write the character whole."
            ) from None
        return value
