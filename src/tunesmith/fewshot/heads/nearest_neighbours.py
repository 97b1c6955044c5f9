"""The nearest training rows vote."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from tunesmith.core.errors import DataError
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.tasks.heads.base import Head, RowsHead, unit


class NeighboursHead(RowsHead):
    """logits = log of the sum over the k nearest rows of c of exp(scale * cos(x, row)), and of exp(-scale)."""

    def __init__(self, width: int, classes: int, scale: float, count: int) -> None:
        super().__init__(width, classes)
        self.scale, self.count = scale, count

    def keep(self, features: Tensor, labels: Tensor) -> None:
        """Keep rows, at least as many as are asked, and one more so that a row in training has as many others."""
        if len(labels) <= self.count:
            raise DataError(
                f"head nearest-neighbours: k={self.count} with {len(labels)} training rows; k must be smaller. Lower "
                "task.head_kind.k or add rows."
            )
        super().keep(features, labels)

    def answer(self, x: Tensor, rows: Tensor, own: Tensor | None) -> Tensor:
        """Let the nearest rows vote; a row in training is not its own neighbour."""
        scores = self.scale * unit(x) @ unit(rows).T
        if own is not None:
            scores = scores.masked_fill(self.hidden(own), float("-inf"))
        nearest, places = scores.topk(self.count, dim=1)
        votes = nn.functional.one_hot(self.labels[places], self.class_count).bool()  # (R, k, C)
        by_class = nearest[..., None].expand(votes.shape).masked_fill(~votes, float("-inf"))
        floor = by_class.new_full((len(x), 1, self.class_count), -self.scale)
        return torch.logsumexp(torch.cat([by_class, floor], 1), 1)


@register("heads")
class NearestNeighbours(Head):
    """The k nearest training rows vote by cosine; every class also has one row at cosine -1. Nothing of it trains."""

    name: ClassVar[str] = "nearest-neighbours"
    paper: ClassVar[str] = "Cover and Hart 1967, doi:10.1109/TIT.1967.1053964"
    keeps_rows: ClassVar[bool] = True

    k: int = setting(3, "How many rows vote.", unit="count", ge=1)

    def build(self, width: int, classes: int, scale: float, dropout: float) -> nn.Module:
        """Make the module."""
        return NeighboursHead(width, classes, scale, self.k)
