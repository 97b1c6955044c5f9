"""The model as it is."""

from __future__ import annotations

from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.search.guessing import Given
from tunesmith.search.proposals.base import Proposal


@register("proposals")
class Untuned(Proposal):
    """Ask the model as it is: the prompt alone."""

    name: ClassVar[str] = "prompt-only"
    order: ClassVar[int] = 4
    families: ClassVar[tuple[str, ...]] = ("generating",)
    why: ClassVar[str] = "nothing is learned: the model answers as it is, which is what tuning has to beat"

    def changes(self, given: Given) -> dict[str, Any]:
        """Train nothing."""
        return {"method": {"name": "none"}}
