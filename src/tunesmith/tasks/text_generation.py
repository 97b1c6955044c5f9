"""Texts that go on: continued pretraining on unlabelled text, or pretraining from scratch."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import nn

from tunesmith.core.errors import CompatibilityError
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.tasks.generating import LanguageTask


@register("tasks")
class TextGeneration(LanguageTask):
    """Predict every token of a text from those before it; a text longer than a row becomes several rows."""

    name: ClassVar[str] = "text-generation"
    metrics: ClassVar[tuple[str, ...]] = ("perplexity", "nats-per-token", "bits-per-character")

    def prepare(self, model: nn.Module, facts: dict[str, Any]) -> TextGeneration:
        """Refuse models of two parts: a text that goes on has nothing for an encoder to read."""
        if getattr(model.config, "is_encoder_decoder", False):
            raise CompatibilityError(
                f"task {self.name}: {type(model).__name__} has an encoder and a decoder, and a text that goes on has "
                "nothing for the encoder. Choose a decoder (GPT- or Llama-like), or a task with questions and answers."
            )
        return self

    documents: Literal["file", "line"] = setting("file", "What is one text in a .txt file.")
