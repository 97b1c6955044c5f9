"""Matching networks: attention over the training rows."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from tunesmith.core.registry import register
from tunesmith.tasks.heads.base import Head, RowsHead, class_logsumexp, unit


class MatchingHead(RowsHead):
    """softmax over classes of the logits = sum over the rows of c of softmax over all rows of scale * cos(x, row)."""

    def __init__(self, width: int, classes: int, scale: float) -> None:
        super().__init__(width, classes)
        self.scale = scale

    def answer(self, x: Tensor, rows: Tensor, own: Tensor | None) -> Tensor:
        """Attend to the rows; a row in training does not attend to itself."""
        scores = self.scale * unit(x) @ unit(rows).T
        if own is not None:
            scores = scores.masked_fill(self.hidden(own), float("-inf"))
        return class_logsumexp(scores, self.labels, self.class_count)


@register("heads")
class Matching(Head):
    """A softmax over the training rows by cosine; a class has the shares of its rows. Nothing of the head trains.

    Source: Vinyals et al. 2016, arXiv:1606.04080, eq. 1. Differs: no embedding of a row in the light of all others.
    """

    name: ClassVar[str] = "matching"
    paper: ClassVar[str] = "Vinyals et al. 2016, arXiv:1606.04080"
    keeps_rows: ClassVar[bool] = True

    def build(self, width: int, classes: int, scale: float, dropout: float) -> nn.Module:
        """Make the module."""
        return MatchingHead(width, classes, scale)
