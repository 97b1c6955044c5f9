"""Metric learning with LoRA."""

from __future__ import annotations

from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.fewshot.ways.base import Way


@register("ways")
class MetricLora(Way):
    """Tune the encoder by LoRA so that rows come near their label's vector and text, as recipes/few-shot-best.yaml."""

    name: ClassVar[str] = "lora"
    effort: ClassVar[int] = 3
    trains: ClassVar[bool] = True
    reads_text: ClassVar[bool] = True

    def changes(self) -> dict[str, dict[str, Any]]:
        """Set head, method and training."""
        return {
            "task": {"head_kind": "proxies-and-matching", "head_scale": 10.0, "head_dropout": 0.0},
            "method": {"name": "lora", "rank": 16},
            "training": {
                "epochs": 10,
                "batch_size": 48,
                "learning_rate": 2e-3,
                "warmup_fraction": 0.1,
                "label_rows": 0.5,
                "token_dropout": 0.1,
                "label_smoothing": 0.1,
                "best": "last",
                "patience": None,
                "score_every": 10,
            },
        }
