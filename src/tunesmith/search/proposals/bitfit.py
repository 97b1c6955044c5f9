"""Biases alone."""

from __future__ import annotations

from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.search.guessing import Given
from tunesmith.search.proposals.base import Evidence, Proposal


@register("proposals")
class Biases(Proposal):
    """Tune the model's biases."""

    name: ClassVar[str] = "bitfit"
    why: ClassVar[str] = "the biases of all layers, a few hundred times fewer numbers than the model has"
    rate: ClassVar[tuple[float, float]] = (1e-2, 1e-2)
    published: ClassVar[tuple[Evidence, ...]] = (
        Evidence("BANKING77", "minilm", 10, (0.8584, 0.8623, 0.8571), (0.8620, 0.8601, 0.8672), "head-only",
                 "benchmarks/results/methods.json"),
    )  # fmt: skip

    def changes(self, given: Given) -> dict[str, Any]:
        """Tune biases."""
        return {"method": {"name": "bitfit"}, "training": self.trained(given)}
