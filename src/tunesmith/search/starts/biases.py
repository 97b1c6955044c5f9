"""Biases alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.search.changes import Change
from tunesmith.search.evidence import Known
from tunesmith.search.starts.base import Start


@register("starts")
class Biases(Start):
    """Train the model's biases, far fewer numbers than LoRA."""

    name: ClassVar[str] = "biases"
    order: ClassVar[int] = 6

    def propose(self, known: Known, values: Mapping[str, Any]) -> Sequence[Change]:
        """Take BitFit at a rate that suits it."""
        if values["method"]["name"] == "bitfit" or not known.has_biases:
            return []
        changes = {"method": {"name": "bitfit"}, "training.learning_rate": 5e-3}
        return [Change("biases alone (BitFit)", changes, "fewer numbers learn less by heart")]
