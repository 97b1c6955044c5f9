"""Every weight of the model."""

from __future__ import annotations

from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.search.guessing import Given
from tunesmith.search.proposals.base import Evidence, Proposal


@register("proposals")
class Full(Proposal):
    """Tune all weights."""

    name: ClassVar[str] = "full"
    order: ClassVar[int] = 3
    families: ClassVar[tuple[str, ...]] = ("labelling", "generating")
    why: ClassVar[str] = "every weight trains: the most that can be learned, at the highest cost of memory and disk"
    rate: ClassVar[tuple[float, float]] = (1e-4, 1e-4)
    published: ClassVar[tuple[Evidence, ...]] = (
        Evidence("BANKING77", "minilm", 10, (0.8584, 0.8623, 0.8571), (0.8607, 0.8578, 0.8685), "head-only",
                 "benchmarks/results/methods.json"),
    )  # fmt: skip

    def changes(self, given: Given) -> dict[str, Any]:
        """Train everything."""
        return {"method": {"name": "full"}, "training": self.trained(given)}
