"""Conversations as ShareGPT wrote them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.data.formats.base import Format, Turns, written
from tunesmith.data.formats.messages import pairs


@register("formats")
class ShareGpt(Format):
    """A list of {"from", "value"} under `conversations`, and a text `system` where there is one."""

    name: ClassVar[str] = "sharegpt"
    holds: ClassVar[str] = "a column conversations with a list of {from, value}"
    columns: ClassVar[tuple[str, ...]] = ("conversations", "system")

    @classmethod
    def fits(cls, columns: Sequence[str]) -> bool:
        """Look for the column."""
        return "conversations" in columns

    def turns(self, row: Mapping[str, Any]) -> Turns:
        """Put the system text first."""
        system = [("system", row["system"])] if written(row.get("system")) else []
        return [*system, *pairs(row["conversations"], ("from", "value"))], []
