"""Chat messages as OpenAI's interface has them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tunesmith.core.errors import DataError
from tunesmith.core.registry import register
from tunesmith.data.formats.base import Format, Turns


@register("formats")
class Messages(Format):
    """A list of {"role", "content"} under `messages`."""

    name: ClassVar[str] = "messages"
    holds: ClassVar[str] = "a column messages with a list of {role, content}"
    columns: ClassVar[tuple[str, ...]] = ("messages",)

    @classmethod
    def fits(cls, columns: Sequence[str]) -> bool:
        """Look for the column."""
        return "messages" in columns

    def turns(self, row: Mapping[str, Any]) -> Turns:
        """Take the list as it is."""
        return pairs(row["messages"], ("role", "content")), []


def pairs(value: Any, keys: tuple[str, str]) -> list[tuple[Any, ...]]:
    """Read a list of messages, or its JSON text.

    Args:
        value: as the file has it.
        keys: of the role and of the content.
    Returns:
        (role, content) of each, and its `weight` where it has one.
    Raises:
        DataError: not such a list.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise DataError(f"a list of messages is needed; the text is not JSON: {error.msg}.") from None
        except (ValueError, RecursionError):
            raise DataError(
                "a list of messages is needed; the text holds a number of too many digits, or lists or objects too "
                "deep inside each other."
            ) from None
    if not isinstance(value, Sequence) or not all(isinstance(item, Mapping) for item in value):
        raise DataError(f"a list of messages is needed, not {str(value)[:60]!r}.")
    missing = next((key for item in value for key in keys if key not in item), None)
    if missing is not None:
        raise DataError(f"a message lacks '{missing}'; each needs '{keys[0]}' and '{keys[1]}'.")
    return [(item[keys[0]], _text(item[keys[1]]), *((item["weight"],) if "weight" in item else ())) for item in value]


def _text(content: Any) -> Any:
    """Join a content that is given in parts of text; anything else stays as it is."""
    if not isinstance(content, list) or not content:
        return content
    parts = [item.get("text") for item in content if isinstance(item, Mapping) and item.get("type") == "text"]
    whole = len(parts) == len(content) and all(isinstance(part, str) for part in parts)
    return "".join(map(str, parts)) if whole else content
