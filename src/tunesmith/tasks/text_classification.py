"""Text classification with a single label."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from tunesmith.core.errors import CompatibilityError, RecipeError
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.models.backbone import Backbone, pool
from tunesmith.models.ending import row_ends
from tunesmith.models.layout import Layout
from tunesmith.models.structure import is_causal
from tunesmith.tasks.labelling import LabelTask


@register("tasks")
class TextClassification(LabelTask):
    """One label per text: a head on the pooled output of the model.

    The cosine head compares directions: logits = scale * cos(features, prototype of the class). It starts from the
    class means of the frozen model's features, so that training begins where a nearest-prototype classifier ends.

    Source: cosine head and prototypes: Qi et al. 2018, arXiv:1712.07136.
    """

    name: ClassVar[str] = "text-classification"
    metrics: ClassVar[tuple[str, ...]] = (
        "accuracy",
        "macro-f1",
        "micro-f1",
        "precision",
        "recall",
        "roc-auc",
        "log-loss",
        "calibration-error",
    )
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
        pooling = self.pooling
        if pooling == "auto":
            pooling = facts.get("pooling") or ("last" if is_causal(model) else "mean")
        if pooling == "pooler" and (getattr(model, "pooler", None) is None or model.untrained_pooler):
            raise RecipeError(
                f"task.pooling: {type(model).__name__} has no trained pooler. Allowed: auto, mean, cls, last."
            )
        if pooling == "cls" and is_causal(model):
            raise RecipeError(
                f"task.pooling: in {type(model).__name__} the first token sees nothing of the rest, so 'cls' would "
                "predict by chance. Allowed: auto, mean, last."
            )
        if pooling != "pooler" and getattr(model, "pooler", None) is not None:
            model.pooler = None  # type: ignore[assignment]
        return self.model_copy(update={"pooling": pooling})

    def features(self, backbone: Backbone, hidden: Tensor, layout: Layout) -> Tensor:
        """Pool each row.

        Args:
            backbone: the model.
            hidden: (N, D).
            layout: of R rows.
        Returns:
            (R, D).
        """
        if self.pooling == "pooler":
            first = pool(hidden, layout, "cls")
            pooled: Tensor = backbone.model.pooler(first[:, None])  # type: ignore[operator]
            return pooled
        return pool(hidden, layout, self.pooling)

    def places(self, layout: Layout) -> Tensor | None:
        """Take the token that the pooling reads."""
        return row_ends(layout, "cls" if self.pooling == "pooler" else self.pooling)


def _check_reads_text(model: nn.Module) -> None:
    name = type(model).__name__
    if getattr(model, "main_input_name", "input_ids") != "input_ids":
        raise CompatibilityError(
            f"task text-classification: {name} reads '{model.main_input_name}', not text. Choose a text model."
        )
    if getattr(model.config, "is_encoder_decoder", False):
        raise CompatibilityError(
            f"task text-classification: {name} has an encoder and a decoder, which this task does not read yet. "
            "Choose an encoder (BERT-like) or a decoder (GPT-like)."
        )
