"""Image classification with a single label."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import nn

from tunesmith.core.errors import CompatibilityError
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.tasks.pooled import PooledTask


@register("tasks")
class ImageClassification(PooledTask):
    """One label per image: a head on the pooled output of a vision encoder.

    An image is a row of as many tokens as the encoder makes of it; heads, losses and methods are those of texts.
    """

    name: ClassVar[str] = "image-classification"
    reads: ClassVar[str] = "images"
    baselines: ClassVar[tuple[str, ...]] = ("majority", "linear-probe")

    pooling: Literal["auto", "mean", "cls", "pooler"] = setting(
        "auto", "How tokens become one vector; auto: the class token where the model has one, else mean."
    )

    def prepare(self, model: nn.Module, facts: dict[str, Any]) -> ImageClassification:
        """Settle the pooling.

        Args:
            model: as loaded.
            facts: not read.
        Returns:
            The task with its pooling decided.
        Raises:
            RecipeError: pooling is `pooler` and the model has no trained one.
            CompatibilityError: the model does not read images.
        """
        read = getattr(model, "main_input_name", "input_ids")
        if read != "pixel_values":
            raise CompatibilityError(
                f"task image-classification: {type(model).__name__} reads '{read}', not images. "
                "Choose a vision encoder, for example a ViT."
            )
        names = (name.rpartition(".")[2] for name, _ in model.named_parameters())
        found: ImageClassification = self.settled(model, "cls" if "cls_token" in names else "mean")
        return found
