"""Templates: text with named fields, filled in and never executed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from tunesmith.core.errors import RecipeError, unknown

_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


class Template:
    """A text with fields in braces; doubled braces stand for themselves.

    Args:
        text: for example "Question: {text}".
    Raises:
        RecipeError: a brace without its partner, an empty field, or no field at all.
    Example:
        >>> Template("Review: {text}").render({"text": "Fine."})
        'Review: Fine.'
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.fields: list[str] = []
        self._parts: list[tuple[bool, str]] = []  # (is a field, text or name)
        end = 0
        for match in _FIELD.finditer(text):
            self._parts.append((False, text[end : match.start()]))
            self._parts.append(self._part(match))
            end = match.end()
        self._parts.append((False, text[end:]))
        if not self.fields:
            raise RecipeError(f"prompt.template: '{text}' has no field, so every row would read the same.")

    def _part(self, match: re.Match[str]) -> tuple[bool, str]:
        token, name = match.group(0), match.group(1)
        if token in ("{{", "}}"):
            return False, token[0]
        if name is None or not name.strip():
            what = "an empty field" if name is not None else f"a single '{token}'"
            raise RecipeError(
                f"prompt.template: {what} at character {match.start() + 1} of '{self.text}'. "
                "Write a field as {name} and a literal brace doubled."
            )
        name = name.strip()
        if name not in self.fields:
            self.fields.append(name)
        return True, name

    def check(self, columns: Iterable[str]) -> None:
        """Refuse fields that no column fills.

        Args:
            columns: names that rows will have.
        Raises:
            RecipeError: with the nearest column.
        """
        names = list(columns)
        for field in self.fields:
            if field not in names:
                raise RecipeError(f"prompt.template: {unknown('field', field, names)}")

    def render(self, row: Mapping[str, str]) -> str:
        """Fill in one row.

        Args:
            row: a value for every field.
        Returns:
            The text.
        """
        return "".join(row[part] if is_field else part for is_field, part in self._parts)
