"""Conversations: what a generating task learns from, whatever form the file has."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunesmith.core.errors import DataError, RecipeError, unknown
from tunesmith.core.registry import components
from tunesmith.data.cleaned import Cleaned, with_changes
from tunesmith.data.cleaning.base import Change
from tunesmith.data.columns import CellTypes, mixed_columns
from tunesmith.data.examples import Columns, Examples, find_reader, read_examples
from tunesmith.data.formats.base import ROLES, EmptyRow, Format, written
from tunesmith.data.readers.base import Reader, Row

# "role": system, user, assistant or tool; "content"; and "weight": "0" for an answer that is only read.
Message = dict[str, str]

COLUMN = "question or answer"  # the column under which conversations are kept; messages about empty ones name it


@dataclass(frozen=True)
class Conversation:
    """Messages, the last one an answer.

    Args:
        messages: in order.
        references: further right answers to the last question.
    """

    messages: list[Message]
    references: list[str]

    @property
    def answer(self) -> str:
        """The last message's text."""
        return self.messages[-1]["content"]

    @property
    def question(self) -> list[Message]:
        """Everything before the last message."""
        return self.messages[:-1]

    def text(self) -> str:
        """Return the conversation as JSON."""
        return json.dumps([self.messages, self.references], ensure_ascii=False)

    @classmethod
    def of(cls, text: str) -> Conversation:
        """Read what `text` wrote.

        Args:
            text: JSON.
        Returns:
            The conversation.
        """
        return cls(*json.loads(text))


def role(name: Any) -> str:
    """Translate a speaker's name.

    Args:
        name: as a file has it.
    Returns:
        system, user, assistant or tool.
    Raises:
        DataError: a name that stands for none of them.
    """
    spoken = ROLES.get(str(name).strip().lower())
    if spoken is None:
        raise DataError(unknown("role", str(name), ROLES))
    return spoken


def messages_of(values: Sequence[tuple[Any, ...]]) -> list[Message]:
    """Make messages of (role, content) pairs and check that they make sense.

    Args:
        values: in order; a third entry 0 marks an answer that is only read.
    Returns:
        The messages, those after the last answer that is learned left out.
    Raises:
        DataError: an unknown role, a content that is no text, a weight other than 0 and 1, or no answer.
        EmptyRow: an empty answer, or nothing that is asked before the first one.
    """
    found = [_message(number, *value) for number, value in enumerate(values, 1)]
    while found and (found[-1]["role"] != "assistant" or "weight" in found[-1]):
        found.pop()
    if not found:
        raise DataError("no message is an answer to learn (role assistant, weight 1), so there is nothing to learn.")
    first = next(place for place, message in enumerate(found) if message["role"] == "assistant")
    if first and not any(message["content"].strip() for message in found[:first]):
        raise EmptyRow("nothing is asked: every message before the first answer is empty.")
    return found


def check_question(messages: Sequence[Message]) -> None:
    """Refuse a conversation that begins with an answer.

    Args:
        messages: of `messages_of`.
    Raises:
        DataError: it does.
    """
    if messages[0]["role"] == "assistant":
        raise DataError(
            "the conversation begins with an answer, so nothing is asked. Put the question first: a message of the "
            "user, or the column of the prompt."
        )


def _message(number: int, name: Any, content: Any, weight: Any = 1) -> Message:
    spoken = role(name)
    if not isinstance(content, str):
        raise DataError(f"message {number} ({spoken}) holds a {type(content).__name__}; a text is needed.")
    if spoken == "assistant" and not content.strip():
        raise EmptyRow(f"message {number}, an answer, is empty: a model would learn to say nothing.")
    if weight not in (0, 1):
        raise DataError(f"message {number} ({spoken}) has the weight {weight!r}; 1 (learned) and 0 (read) are allowed.")
    marked = {"weight": "0"} if spoken == "assistant" and weight == 0 else {}
    return {"role": spoken, "content": content, **marked}


def find_format(columns: Sequence[str], allowed: Sequence[str], path: str) -> Format:
    """Choose the format that a file's columns fit.

    Args:
        columns: of its first row.
        allowed: formats that the task reads, best first.
        path: of the file, for the error.
    Returns:
        The format.
    Raises:
        DataError: none fits; the message says what each needs.
    """
    for name in allowed:
        kind = components("formats")[name]
        if kind.fits(columns):
            return kind()
    for name, kind in components("formats").items():
        if name not in allowed and kind.fits(columns):
            raise DataError(f"{path} holds {name} rows ({kind.holds}), which this task does not use. It reads: "
                            f"{_worded(allowed)}.")  # fmt: skip
    raise DataError(f"{path} has the columns {', '.join(columns)}; this task reads: {_worded(allowed)}.")


def _worded(allowed: Sequence[str]) -> str:
    return "; ".join(f"{name} ({components('formats')[name].holds})" for name in allowed)


class _Conversing(Reader):
    """A reader whose rows are conversations as JSON; rows without an answer are empty cells."""

    def __init__(self, inner: Reader, form: Format, columns: Mapping[str, str]) -> None:
        super().__init__(inner.path, inner.encoding, inner.max_characters)
        self._inner, self._form, self._columns = inner, form, columns
        self.types = {name: CellTypes() for name in form.read_columns()}

    def rows(self) -> Iterator[Row]:
        """Go through the file's rows."""
        for where, values in self._inner.rows():
            values = {**values, **{own: values[name] for own, name in self._columns.items() if name in values}}
            try:
                found = self._conversation(values)
            except EmptyRow:
                yield where, {COLUMN: ""}  # counted, and refused or dropped, as empty cells are
                continue
            except DataError as error:
                raise DataError(f"{self.path}, {where}: {error}") from None
            self._check(found, where)
            for name, types in self.types.items():
                if isinstance(values.get(name), str | int | float):  # lists of messages may stand beside texts
                    types.add(values[name], where)
            yield where, {COLUMN: found.text()}

    def _conversation(self, values: Mapping[str, Any]) -> Conversation:
        try:
            pairs, references = self._form.turns(values)
        except KeyError as error:
            lacking = self._columns.get(str(error.args[0]), str(error.args[0]))
            raise DataError(
                f"the row has no column '{lacking}'; it has {', '.join(map(str, values))}. Every row of this file "
                f"needs the columns of its first row ({self._form.holds})."
            ) from None
        return Conversation(messages_of(pairs), references)

    def _check(self, found: Conversation, where: str) -> None:
        try:
            check_question(found.messages)
        except DataError as error:
            raise DataError(f"{self.path}, {where}: {error}") from None
        longest = max(len(message["content"]) for message in found.messages)
        if longest > self.max_characters:
            raise DataError(
                f"{self.path}, {where}: a message holds {longest:,} characters, more than {self.max_characters:,} "
                "(data.max_characters). If it is meant, raise data.max_characters."
            )


class _CleanedConversations(Cleaned):
    """Conversations whose messages and further answers are changed; placeholders are counted over all of them."""

    def texts(self, values: dict[str, Any]) -> list[str]:
        """Return all messages and further answers."""
        if not values[COLUMN]:
            return []
        found = Conversation.of(values[COLUMN])
        return [*(message["content"] for message in found.messages), *found.references]

    def with_texts(self, values: dict[str, Any], texts: list[str]) -> dict[str, Any]:
        """Put them back; a conversation that lost its question or an answer counts as empty."""
        if not values[COLUMN]:
            return values
        found = Conversation.of(values[COLUMN])
        count = len(found.messages)
        messages = [{**one, "content": text} for one, text in zip(found.messages, texts[:count], strict=True)]
        asked = any(message["content"].strip() for message in messages[:-1])
        answered = all(one["content"].strip() for one in messages if one["role"] == "assistant")
        return {COLUMN: Conversation(messages, texts[count:]).text() if asked and answered else ""}


def first_columns(reader: Reader) -> list[str]:
    """Return the columns of a file's first row.

    Args:
        reader: of the file.
    Returns:
        Their names.
    Raises:
        DataError: no row.
    """
    for _, values in reader.rows():
        return [str(name) for name in values]
    raise DataError(f"{reader.path} holds no examples. One row per example is needed.")


def read_conversations(
    reader: Reader, form: Format, columns: Mapping[str, str], drop_empty: bool, changes: Sequence[Change] = ()
) -> Examples:
    """Read a file of conversations.

    Args:
        reader: of the file.
        form: of its rows.
        columns: of the file by the name that the format gives them, where the two differ.
        drop_empty: drop rows with an empty question or answer instead of refusing the file.
        changes: cleaning steps that change texts, in order.
    Returns:
        The examples; their text is `Conversation.text`.
    Raises:
        DataError: anything wrong, with its line.
    """
    conversing = _Conversing(reader, form, columns)
    wanted = Columns(COLUMN, None)
    if changes:
        found = with_changes(_CleanedConversations(conversing, [], changes), wanted, drop_empty)
    else:
        found = read_examples(conversing, wanted, drop_empty)
    return replace(found, mixed=mixed_columns(conversing.types))


def columns_reader(
    path: str, encoding: str, max_characters: int, columns: Sequence[str] = ()
) -> tuple[Reader, list[str]]:
    """Open a file and look at its columns.

    Args:
        path: of the file.
        encoding: of text files.
        max_characters: longest cell.
        columns: names of the columns of a file without a header.
    Returns:
        The reader, and the columns of the first row.
    Raises:
        DataError: no such file, or no row.
    """
    reader = find_reader(path, encoding, max_characters, columns)
    return reader, first_columns(reader)


def need(row: Mapping[str, Any], column: str) -> str:
    """Return a cell as text.

    Args:
        row: of the file.
        column: that it must have.
    Returns:
        The text, possibly empty.
    Raises:
        DataError: the column is missing, or holds no text.
    """
    if column not in row:
        raise DataError(unknown("column", column, map(str, row)))
    value = row[column]
    if isinstance(value, dict | list | bytes):
        raise DataError(f"column '{column}' holds a {type(value).__name__}; a text is needed.")
    return written(value)


def check_columns(given: Mapping[str, str], columns: Sequence[str], path: str) -> None:
    """Refuse settings that name no column.

    Args:
        given: setting to column.
        columns: of the file's first row.
        path: of the file.
    Raises:
        RecipeError: with the nearest column.
    """
    for key, column in given.items():
        if column not in columns:
            raise RecipeError(f"{key}: {unknown('column', column, columns)} (first row of {path}).")
