"""Metric learning with LoRA on a vision encoder."""

from __future__ import annotations

from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.fewshot.ways.lora import MetricLora


@register("ways")
class ImageLora(MetricLora):
    """Tune a vision encoder by LoRA so that images come near their label's vector."""

    name: ClassVar[str] = "lora-on-images"
    reads_text: ClassVar[bool] = False
    reads_images: ClassVar[bool] = True

    def changes(self) -> dict[str, dict[str, Any]]:
        """Set head, method and training as for texts, without what is about texts."""
        found = super().changes()
        return {**found, "training": {**found["training"], "label_rows": 0.0, "token_dropout": 0.0}}
