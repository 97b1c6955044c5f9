"""Personal data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.data.cleaning.base import Change
from tunesmith.data.personal import find_personal, same_value


@register("cleaning")
class Redaction(Change):
    """Replace mail addresses, phone, card, bank account and identity numbers by placeholders such as <MAIL_1>.

    Placeholders are counted within a row: the same address has the same number wherever it stands in the row, or in
    the conversation, and nothing about it is kept. So a run needs no list of addresses to answer as it was trained.
    """

    name: ClassVar[str] = "redaction"
    kinds: tuple[Literal["mail", "iban", "id", "card", "phone"], ...] = setting(
        ("mail", "iban", "id", "card", "phone"), "What to replace.", min_length=1
    )

    def text(self, text: str) -> str:
        """Replace in one text."""
        return self.cells([text])[0]

    def cells(self, cells: Sequence[str]) -> list[str]:
        """Replace, the same value by the same placeholder in all cells."""
        known: dict[tuple[str, str], str] = {}
        counts: dict[str, int] = {}
        found = []
        for cell in cells:
            parts, end = list[str](), 0
            for item in find_personal(cell, self.kinds):
                key = item.kind, same_value(item.kind, cell[item.start : item.end])
                if key not in known:
                    counts[item.kind] = counts.get(item.kind, 0) + 1
                    known[key] = f"<{item.kind.upper()}_{counts[item.kind]}>"
                parts += [cell[end : item.start], known[key]]
                end = item.end
            found.append("".join([*parts, cell[end:]]))
        return found
