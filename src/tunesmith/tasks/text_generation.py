"""Texts that go on: continued pretraining on unlabelled text, or pretraining from scratch."""

from __future__ import annotations

from typing import ClassVar, Literal

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.tasks.generating import LanguageTask


@register("tasks")
class TextGeneration(LanguageTask):
    """Predict every token of a text from those before it; a text longer than a row becomes several rows."""

    name: ClassVar[str] = "text-generation"
    metrics: ClassVar[tuple[str, ...]] = ("perplexity", "nats-per-token", "bits-per-character")

    documents: Literal["file", "line"] = setting("file", "What is one text in a .txt file.")
