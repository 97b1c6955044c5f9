"""Translation from one language to another."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.tasks.pairs import PairTask


@register("tasks")
class Translation(PairTask):
    """Learn to write the target column's sentence for the source column's."""

    name: ClassVar[str] = "translation"
    metrics: ClassVar[tuple[str, ...]] = ("bleu", "chrf", "perplexity")
