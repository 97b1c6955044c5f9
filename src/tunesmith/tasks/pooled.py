"""Tasks whose head reads one vector per row, pooled from the model's tokens."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from tunesmith.core.errors import RecipeError
from tunesmith.models.backbone import Backbone, pool
from tunesmith.models.ending import row_ends
from tunesmith.models.layout import Layout
from tunesmith.tasks.labelling import LabelTask


class PooledTask(LabelTask):
    """Base of tasks with one label per row on a pooled vector; subclasses declare `pooling`, which may be "auto"."""

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

    @property
    def _pooling(self) -> str:
        return str(self.pooling)  # type: ignore[attr-defined]

    def settled(self, model: nn.Module, auto: str) -> Any:
        """Settle the pooling, and switch off a pooler nobody reads.

        Args:
            model: as loaded.
            auto: what "auto" stands for.
        Returns:
            The task with its pooling decided.
        Raises:
            RecipeError: pooling is `pooler` and the model has no trained one.
        """
        pooling = auto if self._pooling == "auto" else self._pooling
        own = getattr(model, "pooler", None)
        if pooling == "pooler" and (own is None or model.untrained_pooler):
            others = [one for one in type(self).model_fields["pooling"].annotation.__args__ if one != "pooler"]  # type: ignore[union-attr]
            raise RecipeError(
                f"task.pooling: {type(model).__name__} has no trained pooler. Allowed: {', '.join(others)}."
            )
        if pooling != "pooler" and own is not None:
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
        if self._pooling == "pooler":
            first = pool(hidden, layout, "cls")
            pooled: Tensor = backbone.model.pooler(first[:, None])  # type: ignore[operator]
            return pooled
        return pool(hidden, layout, self._pooling)

    def places(self, layout: Layout) -> Tensor | None:
        """Take the token that the pooling reads."""
        return row_ends(layout, "cls" if self._pooling == "pooler" else self._pooling)
