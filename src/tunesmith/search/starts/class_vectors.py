"""Class vectors and rows that vote, with LoRA in the upper half."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.search.changes import Change
from tunesmith.search.evidence import Known, has_head
from tunesmith.search.starts.base import Start


@register("starts")
class ClassVectors(Start):
    """LoRA in the upper half under a vector per class beside which the training rows vote, as recipes/few-shot.yaml."""

    name: ClassVar[str] = "class-vectors"
    order: ClassVar[int] = 1

    rows_per_label: float = setting(50, "Most rows per label; above that voting rows cost more than they give.", gt=0)

    def propose(self, known: Known, values: Mapping[str, Any]) -> Sequence[Change]:
        """Set head, method and training of few examples."""
        if not has_head(values["task"]["name"]) or known.per_label > self.rows_per_label:
            return []
        return [
            Change(
                "class vectors and voting rows, LoRA of rank 16 in the upper half",
                {
                    "task.head_kind": "proxies-and-matching",
                    "task.head_scale": 10.0,
                    "task.head_dropout": 0.0,
                    "method": {"name": "lora", "rank": 16, "layers": "top-half"},
                    "training.epochs": 4,
                    "training.learning_rate": 2e-3,
                    "training.head_learning_rate": 6e-4,
                    "training.warmup_fraction": 0.1,
                    "training.label_smoothing": 0.1,
                    "training.frozen_dropout": False,
                },
                f"{known.per_label:.0f} rows per label are few",
            )
        ]
