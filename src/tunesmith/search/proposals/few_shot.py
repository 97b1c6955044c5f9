"""The recipe for few examples."""

from __future__ import annotations

from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.search.guessing import Given
from tunesmith.search.proposals.base import Evidence, Proposal


@register("proposals")
class FewShot(Proposal):
    """Tune the upper half by LoRA so that rows come near their label's vector, as recipes/few-shot.yaml."""

    name: ClassVar[str] = "few-shot"
    reads_text: ClassVar[bool] = True
    only_few: ClassVar[bool] = True
    why: ClassVar[str] = "made for few rows per label: vectors start between class mean and label name, and rows vote"
    published: ClassVar[tuple[Evidence, ...]] = (
        Evidence("BANKING77", "minilm", 10, (0.8584, 0.8623, 0.8571), (0.880, 0.878, 0.880), "head-only",
                 "docs/LOG.md, of the slower recipes/few-shot-best.yaml"),
    )  # fmt: skip

    def changes(self, given: Given) -> dict[str, Any]:
        """Set head, method and training as recipes/few-shot.yaml does."""
        own = {"epochs": 4, "learning_rate": 2e-3, "head_learning_rate": 6e-4, "score_every": 4}
        return {
            "task": {"head_kind": "proxies-and-matching", "head_scale": 10.0, "head_dropout": 0.0},
            "method": {"name": "lora", "rank": 16, "layers": "top-half"},
            "training": self.trained(given, warmup_fraction=0.1, label_smoothing=0.1, frozen_dropout=False, **own),
        }
