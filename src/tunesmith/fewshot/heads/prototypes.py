"""Prototypical networks: the mean of each class's rows."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.tasks.heads.base import Head, RowsHead, class_sums, unit


class PrototypesHead(RowsHead):
    """logits = scale * cos(x, mean of the unit rows of c), or minus the squared distance to the mean of the rows."""

    def __init__(self, width: int, classes: int, scale: float, euclidean: bool) -> None:
        super().__init__(width, classes)
        self.scale, self.euclidean = scale, euclidean

    def answer(self, x: Tensor, rows: Tensor, own: Tensor | None) -> Tensor:
        """Compare with the class means; a row in training is compared with its own class's other rows."""
        if not self.euclidean:
            x, rows = unit(x), unit(rows)
        counts = torch.bincount(self.labels, minlength=self.class_count).to(x.dtype)[:, None]
        sums = class_sums(rows, self.labels, self.class_count)
        logits = self._compare(x[:, None], (sums / counts.clamp(min=1))[None])
        if own is None:
            return logits
        labels = self.labels[own]
        others = counts[labels] - 1
        kept = self.rows[own] if self.euclidean else unit(self.rows[own])
        means = torch.where(others > 0, (sums[labels] - x) / others.clamp(min=1), kept)
        return logits.scatter(1, labels[:, None], self._compare(x[:, None], means[:, None]))

    def _compare(self, x: Tensor, means: Tensor) -> Tensor:
        """(R, 1, D) and (R or 1, C, D) to (R, C)."""
        if not self.euclidean:
            return self.scale * (x * unit(means)).sum(-1) if len(means) > 1 else self.scale * x[:, 0] @ unit(means[0]).T
        return -(x - means).square().sum(-1)


@register("heads")
class Prototypes(Head):
    """Class means of the training rows under the tuned model; nothing of the head itself trains."""

    name: ClassVar[str] = "prototypes"
    paper: ClassVar[str] = "Snell et al. 2017, arXiv:1703.05175"
    keeps_rows: ClassVar[bool] = True

    distance: Literal["cosine", "euclidean"] = setting("cosine", "How features are compared with the class means.")

    def build(self, width: int, classes: int, scale: float, dropout: float) -> nn.Module:
        """Make the module."""
        return PrototypesHead(width, classes, scale, self.distance == "euclidean")
