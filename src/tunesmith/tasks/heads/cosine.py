"""A vector per class, compared by direction."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from tunesmith.core.registry import register
from tunesmith.models.dropout import DropoutSource, drop
from tunesmith.tasks.heads.base import Head, unit


class CosineHead(nn.Module):
    """logits = scale * cos(dropout(x), w_c)."""

    def __init__(self, width: int, classes: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(classes, width), std=width**-0.5))
        self.scale = scale
        self.dropout, self.source = dropout, DropoutSource()

    def forward(self, x: Tensor) -> Tensor:
        """Map (R, D) to (R, C)."""
        x = drop(x.to(self.weight.dtype), self.dropout if self.training else 0.0, self.source)
        return self.scale * nn.functional.linear(unit(x), unit(self.weight))


@register("heads")
class Cosine(Head):
    """A trained vector per class: logits = scale * cos(features, vector)."""

    name: ClassVar[str] = "cosine"
    paper: ClassVar[str] = "Qi et al. 2018, arXiv:1712.07136"
    has_vectors: ClassVar[bool] = True

    def build(self, width: int, classes: int, scale: float, dropout: float) -> nn.Module:
        """Make the module."""
        return CosineHead(width, classes, scale, dropout)
