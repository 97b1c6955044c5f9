"""Texts that go on: continued pretraining on unlabelled text, or pretraining from scratch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import ValidationInfo, field_validator
from torch import Tensor, nn

from tunesmith.core.errors import CompatibilityError
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.data.tokens import LearnedRows
from tunesmith.models.backbone import Backbone
from tunesmith.models.language import LanguageModel
from tunesmith.models.layout import RaggedBatch
from tunesmith.tasks.encoding import encode_documents
from tunesmith.tasks.generating import LanguageTask
from tunesmith.tasks.masking import encode_masked


@register("tasks")
class TextGeneration(LanguageTask):
    """Predict the tokens of a text; a text longer than a row becomes several rows."""

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
    objective: Literal["causal", "masked"] = setting(
        "causal", "Predict every token from those before it, or hidden ones from both sides (encoders)."
    )
    masked_share: float = setting(
        0.15,
        "Share of a row's tokens that are hidden with objective masked.",
        unit="fraction",
        gt=0,
        lt=1,
    )

    @field_validator("masked_share")
    @classmethod
    def _hides_tokens(cls, value: float, info: ValidationInfo) -> float:
        if info.data.get("objective") == "causal" and value != cls.model_fields["masked_share"].default:
            raise ValueError("nothing is hidden with objective=causal; set objective=masked, or leave it out")
        return value

    @property
    def opens(self) -> str:
        """A model that writes, or one that fills in."""
        return self.objective

    def encode(
        self, texts: Iterable[Iterable[str]], tokenizer: Any, max_tokens: int
    ) -> tuple[LearnedRows, np.ndarray[Any, Any]]:
        """Turn texts into rows.

        Args:
            texts: documents, each in pieces.
            tokenizer: of the model.
            max_tokens: longest row. [tokens]
        Returns:
            The rows, and where each begins: (rows, 2), number of the text and of the piece.
        """
        if self.objective == "masked":
            return encode_masked(texts, tokenizer, max_tokens, self.masked_share)
        return encode_documents(texts, tokenizer, max_tokens)

    def read(self, backbone: Backbone, batch: RaggedBatch) -> Tensor:
        """Take the hidden states before the learned tokens, or at the hidden ones."""
        if self.objective == "causal":
            return super().read(backbone, batch)
        assert isinstance(backbone, LanguageModel) and batch.learned is not None
        return backbone.hidden_at(batch, batch.places)
