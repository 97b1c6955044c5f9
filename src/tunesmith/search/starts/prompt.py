"""Label words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.search.changes import Change
from tunesmith.search.evidence import Known, has_head
from tunesmith.search.starts.base import Start


@register("starts")
class PromptTuning(Start):
    """Ask the model for the labels' words and tune it, as prompt-classification; where rows are very few.

    Source: Schick and Schütze 2021, arXiv:2001.07676.
    """

    name: ClassVar[str] = "prompt"
    order: ClassVar[int] = 7

    rows_per_label: float = setting(5, "Most rows per label; with more of them class vectors learn as well.", gt=0)

    def propose(self, known: Known, values: Mapping[str, Any]) -> Sequence[Change]:
        """Set the task; what it does not read is switched off."""
        plain = has_head(values["task"]["name"]) and values["task"].get("reject") is None
        if not plain or not known.texts or known.per_label > self.rows_per_label:
            return []
        changes: dict[str, Any] = {
            "task": {"name": "prompt-classification"},
            "method": {"name": "lora", "rank": 16},
            "training.learning_rate": 2e-3,
            "training.batch_size": 16,
        }
        if values["training"]["head_learning_rate"] is not None:
            changes["training.head_learning_rate"] = None
        return [
            Change("the labels' words are asked for", changes, f"{known.per_label:.0f} rows per label are very few")
        ]
