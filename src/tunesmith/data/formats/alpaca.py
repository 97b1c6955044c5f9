"""Instructions as Stanford Alpaca wrote them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.data.formats.base import Format, Turns, written


@register("formats")
class Alpaca(Format):
    """An instruction, perhaps with an input, and its output."""

    name: ClassVar[str] = "alpaca"
    holds: ClassVar[str] = "columns instruction and output, perhaps input and system"
    columns: ClassVar[tuple[str, ...]] = ("instruction", "input", "output", "system")

    @classmethod
    def fits(cls, columns: Sequence[str]) -> bool:
        """Look for both columns."""
        return "instruction" in columns and "output" in columns

    def turns(self, row: Mapping[str, Any]) -> Turns:
        """Put the input below the instruction."""
        parts = [written(row.get(key)).strip() for key in ("instruction", "input")]
        system = [("system", row["system"])] if written(row.get("system")) else []
        answer = written(row["output"])
        return [*system, ("user", "\n\n".join(part for part in parts if part)), ("assistant", answer)], []
