"""LoRA on every linear map."""

from __future__ import annotations

from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.search.guessing import Given
from tunesmith.search.proposals.base import Evidence, Proposal


@register("proposals")
class Everywhere(Proposal):
    """Tune every block by LoRA."""

    name: ClassVar[str] = "lora"
    order: ClassVar[int] = 1
    families: ClassVar[tuple[str, ...]] = ("labelling", "generating")
    why: ClassVar[str] = "low-rank changes of every linear map: most of what full tuning gives for a hundredth of it"
    published: ClassVar[tuple[Evidence, ...]] = (
        Evidence("BANKING77", "minilm", 10, (0.8584, 0.8623, 0.8571), (0.8594, 0.8711, 0.8705), "head-only",
                 "benchmarks/results/methods.json"),
        Evidence("BANKING77", "minilm", 117, (0.9253, 0.9224, 0.9221), (0.9360, 0.9403, 0.9351), "linear-probe",
                 "benchmarks/results/banking77_quality.json"),
    )  # fmt: skip

    def changes(self, given: Given) -> dict[str, Any]:
        """Tune every linear map."""
        return {"method": {"name": "lora", "rank": 8}, "training": self.trained(given)}
