"""Templates: text with named fields, filled in and never executed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from tunesmith.core.errors import RecipeError, unknown

_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_ROW = "row."  # in front of a column that is called like a part of the prompt


class Part(NamedTuple):
    """A piece of a template.

    Args:
        kind: plain text, a field that a row fills, or one that the prompt fills.
        value: the text, or the field's name.
    """

    kind: Literal["text", "row", "own"]
    value: str


def parse(text: str, own: Iterable[str] = (), where: str = "prompt.template") -> list[Part]:
    """Cut a template into its pieces.

    Args:
        text: with fields in braces; doubled braces stand for themselves.
        own: fields that the prompt fills; a column of such a name is written {row.NAME}.
        where: the key, for errors.
    Returns:
        The pieces in their order.
    Raises:
        RecipeError: a brace without its partner, or an empty field.
    """
    names, parts, end = set(own), list[Part](), 0
    for match in _FIELD.finditer(text):
        parts.append(Part("text", text[end : match.start()]))
        token, name = match.group(0), match.group(1)
        end = match.end()
        if token in ("{{", "}}"):
            parts.append(Part("text", token[0]))
            continue
        if name is None or not name.strip().removeprefix(_ROW):
            what = "an empty field" if name is not None else f"a single '{token}'"
            raise RecipeError(
                f"{where}: {what} at character {match.start() + 1} of '{text}'. "
                "Write a field as {name} and a literal brace doubled."
            )
        name = name.strip()
        parts.append(Part("own" if name in names else "row", name.removeprefix(_ROW)))
    parts.append(Part("text", text[end:]))
    return [part for part in parts if part.value]


class Template:
    """A text with fields in braces; doubled braces stand for themselves.

    Args:
        text: for example "Question: {text}".
        own: fields that are filled in once and for all.
    Raises:
        RecipeError: a brace without its partner, an empty field, or no field of a row at all.
    Example:
        >>> Template("Review: {text}").render({"text": "Fine."})
        'Review: Fine.'
    """

    def __init__(self, text: str, own: Mapping[str, str] | None = None) -> None:
        own = own or {}
        self.text = text
        self._parts = [Part("text", own[part.value]) if part.kind == "own" else part for part in parse(text, own)]
        self.fields = list(dict.fromkeys(part.value for part in self._parts if part.kind == "row"))
        if not self.fields:
            raise RecipeError(f"prompt.template: '{text}' has no field, so every row would read the same.")

    def check(self, columns: Iterable[str]) -> None:
        """Refuse fields that no column fills.

        Args:
            columns: names that rows will have.
        Raises:
            RecipeError: with the nearest column.
        """
        check_fields(self.fields, columns)

    @property
    def wordings(self) -> list[Template]:
        """Every template that rows are written by."""
        return [self]

    def render(self, row: Mapping[str, str]) -> str:
        """Fill in one row.

        Args:
            row: a value for every field.
        Returns:
            The text.
        """
        return "".join(row[part.value] if part.kind == "row" else part.value for part in self._parts)


class Wordings(Template):
    """Several templates for the same rows; what reads one takes the first.

    Args:
        texts: at least one.
        own: fields that are filled in once and for all.
    Raises:
        RecipeError: one of them is no template.
    Example:
        >>> [one.render({"text": "Fine."}) for one in Wordings(["{text}", "Review: {text}"]).wordings]
        ['Fine.', 'Review: Fine.']
    """

    def __init__(self, texts: Sequence[str], own: Mapping[str, str] | None = None) -> None:
        super().__init__(texts[0], own)
        self._others = [Template(text, own) for text in texts[1:]]
        self.fields = list(dict.fromkeys(name for one in (self, *self._others) for name in one.fields))

    @property
    def wordings(self) -> list[Template]:
        """Every template, the first one first."""
        return [self, *self._others]


def check_fields(fields: Iterable[str], columns: Iterable[str], where: str = "prompt.template") -> None:
    """Refuse fields that no column fills.

    Args:
        fields: of a template.
        columns: names that rows will have, and fields that the prompt fills.
        where: the key, for errors.
    Raises:
        RecipeError: with the nearest column.
    """
    names = list(columns)
    for field in fields:
        if field not in names:
            raise RecipeError(f"{where}: {unknown('field', field, names)}")
