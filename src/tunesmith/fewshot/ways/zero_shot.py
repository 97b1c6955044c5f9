"""Labels' texts alone."""

from __future__ import annotations

from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.fewshot.ways.base import Way


@register("ways")
class ZeroShot(Way):
    """Take the label whose name and description are nearest; nothing is learned from the examples."""

    name: ClassVar[str] = "zero-shot"
    effort: ClassVar[int] = 0
    reads_text: ClassVar[bool] = True

    def changes(self) -> dict[str, dict[str, Any]]:
        """Start at the texts and stay there."""
        return {"task": {"head_kind": "cosine", "head_start": "label-text"}, "method": {"name": "none"}}
