"""Another method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.search.adjustments.base import Adjustment
from tunesmith.search.changes import Change
from tunesmith.search.evidence import Evidence


@register("adjustments")
class OtherMethod(Adjustment):
    """Put another method in the place of the present one, on the same layers: DoRA, LoRA+, a bottleneck adapter."""

    name: ClassVar[str] = "other-method"
    order: ClassVar[int] = 4

    def propose(self, evidence: Evidence) -> Sequence[Change]:
        """Take them in turn."""
        method, why = evidence.method, f"{evidence.scores()} with {evidence.method['name']}"
        if method["name"] == "none":
            return [
                Change("LoRA of rank 8", {"method": {"name": "lora", "rank": 8}}, f"{why}: the model stayed frozen")
            ]
        if method["name"] != "lora":
            return [Change(f"LoRA instead of {method['name']}", {"method": {"name": "lora", "rank": 8}}, why)]
        found = list[tuple[str, dict[str, Any]]]()
        if not method["dora"] and not method["b_bias"]:
            found.append(("LoRA with lengths of rows apart (DoRA)", {"method.dora": True}))
        if method["b_rate_ratio"] == 1.0:
            found.append(("a higher rate of B (LoRA+)", {"method.b_rate_ratio": 4.0}))
        found.append(("bottleneck adapters instead of LoRA", {"method": {"name": "adapter"}}))
        return [Change(what, values, why) for what, values in found]
