"""Labels' names alone."""

from __future__ import annotations

from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.search.guessing import Given
from tunesmith.search.proposals.base import Proposal


@register("proposals")
class ZeroShot(Proposal):
    """Take the label whose name is nearest to the text."""

    name: ClassVar[str] = "zero-shot"
    reads_text: ClassVar[bool] = True
    score: ClassVar[str] = "zero-shot"
    why: ClassVar[str] = "nothing is learned: the labels' names alone decide, so it is what the examples have to beat"

    def changes(self, given: Given) -> dict[str, Any]:
        """Start the head at the labels' texts and stay there."""
        return {"task": {"head_start": "label-text"}, "method": {"name": "none"}}
