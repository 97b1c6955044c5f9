"""Summaries of texts."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.tasks.pairs import PairTask


@register("tasks")
class Summarization(PairTask):
    """Learn to write the target column's summary of the source column's text."""

    name: ClassVar[str] = "summarization"
    metrics: ClassVar[tuple[str, ...]] = ("rouge-1", "rouge-2", "rouge-l", "perplexity")
