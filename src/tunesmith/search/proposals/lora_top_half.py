"""LoRA in the upper half of the blocks."""

from __future__ import annotations

from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.search.guessing import Given
from tunesmith.search.proposals.base import Evidence, Proposal


@register("proposals")
class UpperHalf(Proposal):
    """Tune the upper half of the blocks by LoRA; what the lower half gives is computed once per row."""

    name: ClassVar[str] = "lora-top-half"
    order: ClassVar[int] = 2
    families: ClassVar[tuple[str, ...]] = ("labelling", "generating")
    why: ClassVar[str] = "LoRA in the upper half: what the lower half gives is kept, so later epochs cost about half"
    published: ClassVar[tuple[Evidence, ...]] = (
        Evidence("BANKING77", "minilm", 10, (0.8593,), (0.8685,), "head-only", "benchmarks/results/frozen_depth.json"),
    )

    def changes(self, given: Given) -> dict[str, Any]:
        """Tune the upper half."""
        return {"method": {"name": "lora", "rank": 8, "layers": "top-half"}, "training": self.trained(given)}
