"""LoRA in the upper half."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tunesmith.core.registry import find, register
from tunesmith.search.changes import Change
from tunesmith.search.evidence import Known
from tunesmith.search.starts.base import Start


@register("starts")
class UpperHalf(Start):
    """Twice the rank in the upper half of the model, twice the epochs: about the same time as below."""

    name: ClassVar[str] = "upper-half"
    order: ClassVar[int] = 5

    def propose(self, known: Known, values: Mapping[str, Any]) -> Sequence[Change]:
        """Keep the recipe's method where it has layers and a rank; else take LoRA."""
        fields = find("methods", values["method"]["name"]).model_fields
        own: Mapping[str, Any] = values["method"]
        lora: Mapping[str, Any] = {"name": "lora", "rank": 8}
        method = own if {"rank", "layers"} <= set(fields) else lora
        changes = {
            "method": {"name": method["name"], "rank": 2 * int(method["rank"]), "layers": "top-half"},
            "training.epochs": 2 * int(values["training"]["epochs"]),
        }
        return [Change("the upper half of the model, twice as long", changes, "upper layers carry what a task needs")]
