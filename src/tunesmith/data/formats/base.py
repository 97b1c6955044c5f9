"""What a format is: it knows by its columns whether a file has it, and turns a row into messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tunesmith.core.errors import DataError


class EmptyRow(DataError):
    """A row without a question or without an answer; it may be dropped (data.empty=drop)."""


# (role, content) of every message in order, an answer that is not to be learned with a third entry, 0; and further
# right answers to the last question.
Turns = tuple[list[tuple[Any, ...]], list[str]]

ROLES = {  # by the names that files give them
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}


def written(value: Any) -> str:
    """Return a cell as text.

    Args:
        value: of it; a number counts as written.
    Returns:
        The text; nothing where there is none.
    """
    return "" if value is None or value != value else str(value)  # None, NaN


class Format:
    """Base of every format. Its file registers one subclass with `@register("formats")`."""

    name: ClassVar[str]
    holds: ClassVar[str]  # the columns, in words
    columns: ClassVar[tuple[str, ...]] = ()  # all that it reads; task.columns may give them other names

    @classmethod
    def fits(cls, columns: Sequence[str]) -> bool:
        """Say whether a file with these columns has this form.

        Args:
            columns: of its first row.
        Returns:
            Whether it does.
        """
        raise NotImplementedError

    def read_columns(self) -> Sequence[str]:
        """Name the columns that it reads, where a file has them.

        Returns:
            By default `columns`.
        """
        return self.columns

    def turns(self, row: Mapping[str, Any]) -> Turns:
        """Turn a row into messages.

        Args:
            row: values by column.
        Returns:
            The messages and further references.
        Raises:
            DataError: the row is not of this form.
        """
        raise NotImplementedError
