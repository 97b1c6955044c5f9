"""Prompt-based tuning: the model is asked for the label's words."""

from __future__ import annotations

from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.fewshot.ways.base import Way


@register("ways")
class PromptTuning(Way):
    """Ask for the labels' words and tune by LoRA: in the mask where the model fills one in, else as label prototypes.

    Source: Schick and Schütze 2021, arXiv:2001.07676; Gao et al. 2021, arXiv:2012.15723.
    """

    name: ClassVar[str] = "prompt"
    effort: ClassVar[int] = 4
    trains: ClassVar[bool] = True
    reads_text: ClassVar[bool] = True

    def changes(self) -> dict[str, dict[str, Any]]:
        """Set the task, method and training; what the task does not read is switched off."""
        return {
            "task": {"name": "prompt-classification"},
            "method": {"name": "lora", "rank": 16},
            "training": {
                "epochs": 10,
                "batch_size": 16,
                "learning_rate": 2e-3,
                "head_learning_rate": None,
                "warmup_fraction": 0.1,
                "label_rows": 0.0,
                "token_dropout": 0.0,
                "rows_per_label": None,
                "best": "last",
                "patience": None,
                "score_every": 10,
            },
        }
