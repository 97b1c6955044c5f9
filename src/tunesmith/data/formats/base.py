"""What a format is: it knows by its columns whether a file has it, and turns a row into messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tunesmith.core.errors import DataError


class EmptyAnswer(DataError):
    """A row without an answer; it may be dropped (data.empty=drop)."""


# (role, content) of every message in order, and further right answers to the last question.
Turns = tuple[list[tuple[Any, Any]], list[str]]


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
