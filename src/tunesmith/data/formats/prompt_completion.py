"""A prompt and its completion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.data.formats.base import Format, Turns, written
from tunesmith.data.formats.messages import pairs


@register("formats")
class PromptCompletion(Format):
    """A prompt and its completion, each a text or a list of messages."""

    name: ClassVar[str] = "prompt-completion"
    holds: ClassVar[str] = "columns prompt and completion (or response)"
    columns: ClassVar[tuple[str, ...]] = ("prompt", "completion", "response")

    @classmethod
    def fits(cls, columns: Sequence[str]) -> bool:
        """Look for both columns."""
        return "prompt" in columns and ("completion" in columns or "response" in columns)

    def turns(self, row: Mapping[str, Any]) -> Turns:
        """Answer the prompt."""
        answer = row["completion"] if "completion" in row else row["response"]
        return [*spoken(row["prompt"], "user"), *spoken(answer, "assistant")], []


def spoken(value: Any, role: str) -> list[tuple[Any, ...]]:
    """Read a text, or a list of messages, as messages.

    Args:
        value: as the file has it.
        role: of a text.
    Returns:
        (role, content) of each.
    """
    plain = value is None or isinstance(value, str | int | float)
    return [(role, written(value))] if plain else pairs(value, ("role", "content"))
