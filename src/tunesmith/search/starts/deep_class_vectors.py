"""Class vectors and rows that vote, with LoRA in the whole model and what makes few rows more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.search.changes import Change
from tunesmith.search.evidence import Known
from tunesmith.search.starts.class_vectors import ClassVectors


@register("starts")
class DeepClassVectors(ClassVectors):
    """The same with LoRA in all linear maps, and on texts with hidden tokens and the labels' own texts as rows."""

    name: ClassVar[str] = "deep-class-vectors"
    order: ClassVar[int] = 2

    def propose(self, known: Known, values: Mapping[str, Any]) -> Sequence[Change]:
        """Adapt the whole model."""
        more: dict[str, Any] = {"training.epochs": 6, "training.frozen_dropout": True}
        if known.texts:
            more |= {"training.token_dropout": 0.1, "training.label_rows": 0.5}
        return [
            Change(
                "class vectors and voting rows, LoRA of rank 16 in the whole model",
                {**change.values, "method": {"name": "lora", "rank": 16, "layers": "all-linear"}, **more},
                change.why,
            )
            for change in super().propose(known, values)
        ]
