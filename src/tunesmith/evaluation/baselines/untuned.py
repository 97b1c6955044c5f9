"""The model before tuning."""

from __future__ import annotations

from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.evaluation.baselines.base import Baseline


@register("baselines")
class Untuned(Baseline):
    """Ask the language model as it came, with the same prompts; nothing is learned."""

    name: ClassVar[str] = "untuned"
    reads: ClassVar[str] = "texts"
    needs_features: ClassVar[bool] = False

    def predict(self, material: Any, splits: list[str]) -> dict[str, Any]:
        """Let the model without a delta answer every split."""
        return {split: material.answer(split) for split in splits}
