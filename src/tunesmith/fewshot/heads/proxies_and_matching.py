"""A trained vector per class, and beside it a vote of the training rows."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.models.dropout import DropoutSource, drop
from tunesmith.tasks.heads.base import Head, RowsHead, Start, class_logsumexp, label_mix, unit


class ProxiesAndMatchingHead(RowsHead):
    """logits = log softmax(scale * cos(x, w_c)) + share * log p(c | rows), p as the matching head computes it.

    While it trains, scale * cos(x, w_c) alone.
    """

    def __init__(self, width: int, classes: int, scale: float, dropout: float) -> None:
        super().__init__(width, classes)
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(classes, width), std=width**-0.5))
        self.scale, self.share, self.sharpness = scale, 0.5, 20.0
        self.dropout, self.source = dropout, DropoutSource()

    def learn(self, x: Tensor, index: Tensor) -> Tensor:
        """Compare with the class vectors alone."""
        x = drop(x.to(self.weight.dtype), self.dropout if self.training else 0.0, self.source)
        return self.scale * unit(x) @ unit(self.weight).T

    def answer(self, x: Tensor, rows: Tensor, own: Tensor | None) -> Tensor:
        """Add up what class vectors and rows say."""
        x = unit(x)
        vectors = (self.scale * x @ unit(self.weight).T).log_softmax(-1)
        votes = class_logsumexp(self.sharpness * x @ unit(rows).T, self.labels, self.class_count)
        return vectors + self.share * votes.log_softmax(-1)


@register("heads")
class ProxiesAndMatching(Head):
    """Vectors as in `proxies`, and when it answers the training rows vote as in `matching`."""

    name: ClassVar[str] = "proxies-and-matching"
    has_vectors: ClassVar[bool] = True
    keeps_rows: ClassVar[bool] = True
    compares_rows: ClassVar[bool] = False
    needs_label_text: ClassVar[bool] = True

    label_weight: float = setting(0.5, "Share of the label's text in the start.", unit="fraction", ge=0, le=1)
    rows_weight: float = setting(0.5, "Weight of the rows' vote beside the vectors.", ge=0)
    sharpness: float = setting(20.0, "Scale of the cosines in the rows' vote.", gt=0)

    def build(self, width: int, classes: int, scale: float, dropout: float) -> nn.Module:
        """Make the module."""
        module = ProxiesAndMatchingHead(width, classes, scale, dropout)
        module.share, module.sharpness = self.rows_weight, self.sharpness
        return module

    @torch.no_grad()
    def start(self, module: nn.Module, start: Start, scale: float) -> None:
        """Mix the directions of the class mean and of the label's text; keep the rows."""
        super().start(module, start, scale)
        module.weight.copy_(label_mix(start, module.weight, self.label_weight))  # type: ignore[operator,arg-type]
