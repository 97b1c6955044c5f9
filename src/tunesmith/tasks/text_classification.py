"""Text classification with a single label."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import nn

from tunesmith.core.errors import CompatibilityError, RecipeError
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.models.structure import is_causal
from tunesmith.tasks.pooled import PooledTask


@register("tasks")
class TextClassification(PooledTask):
    """One label per text: a head on the pooled output of the model.

    The cosine head compares directions: logits = scale * cos(features, prototype of the class). It starts from the
    class means of the frozen model's features, so that training begins where a nearest-prototype classifier ends.

    Source: cosine head and prototypes: Qi et al. 2018, arXiv:1712.07136.
    """

    name: ClassVar[str] = "text-classification"
    baselines: ClassVar[tuple[str, ...]] = ("majority", "zero-shot", "linear-probe")

    pooling: Literal["auto", "mean", "cls", "last", "pooler"] = setting(
        "auto", "How tokens become one vector; auto: what the model folder says, else last if causal, else mean."
    )

    def prepare(self, model: nn.Module, facts: dict[str, Any]) -> TextClassification:
        """Settle the pooling, and switch off a pooler nobody reads.

        Args:
            model: as loaded.
            facts: may hold "pooling".
        Returns:
            The task with its pooling decided.
        Raises:
            RecipeError: pooling is `pooler` and the model has no trained one.
            CompatibilityError: the model does not read text, or has an encoder and a decoder.
        """
        _check_reads_text(model)
        auto = facts.get("pooling") or ("last" if is_causal(model) else "mean")
        if self.pooling == "cls" and is_causal(model):
            raise RecipeError(
                f"task.pooling: in {type(model).__name__} the first token sees nothing of the rest, so 'cls' would "
                "predict by chance. Allowed: auto, mean, last."
            )
        found: TextClassification = self.settled(model, auto)
        return found


def _check_reads_text(model: nn.Module) -> None:
    name = type(model).__name__
    if getattr(model, "main_input_name", "input_ids") != "input_ids":
        raise CompatibilityError(
            f"task text-classification: {name} reads '{model.main_input_name}', not text. Choose a text model, "
            "or the task image-classification for images."
        )
    if getattr(model.config, "is_encoder_decoder", False):
        raise CompatibilityError(
            f"task text-classification: {name} has an encoder and a decoder, which this task does not read yet. "
            "Choose an encoder (BERT-like) or a decoder (GPT-like)."
        )
