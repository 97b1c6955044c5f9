"""Preference pairs, of which the chosen answer is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.data.formats.base import ROLES, Format, Turns, written
from tunesmith.data.formats.prompt_completion import spoken


@register("formats")
class Preference(Format):
    """A chosen and a rejected answer; the chosen one is learned, the rejected one is not read."""

    name: ClassVar[str] = "preference"
    holds: ClassVar[str] = "columns chosen and rejected, perhaps prompt"
    columns: ClassVar[tuple[str, ...]] = ("chosen", "rejected", "prompt", "question")

    @classmethod
    def fits(cls, columns: Sequence[str]) -> bool:
        """Look for both columns."""
        return "chosen" in columns and "rejected" in columns

    def turns(self, row: Mapping[str, Any]) -> Turns:
        """Take the prompt, where it stands apart, and the chosen answer."""
        prompt = row.get("prompt") if written(row.get("prompt")) else row.get("question")
        before = spoken(prompt, "user") if written(prompt) else []
        chosen = spoken(row["chosen"], "assistant")
        roles = [ROLES.get(str(role).strip().lower()) for role, *_ in chosen]
        if "user" in roles:  # the whole conversation
            return chosen, []
        systems = len(list(takewhile(lambda role: role == "system", roles)))
        return [*chosen[:systems], *before, *chosen[systems:]], []
