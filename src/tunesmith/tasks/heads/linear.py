"""The usual head: a linear map with a bias."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from tunesmith.core.registry import register
from tunesmith.models.dropout import DropoutSource, drop
from tunesmith.tasks.heads.base import Head, Start


class LinearHead(nn.Module):
    """logits = dropout(x) W^T + b."""

    def __init__(self, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(classes, width), std=0.02))
        self.bias = nn.Parameter(torch.zeros(classes))
        self.dropout, self.source = dropout, DropoutSource()

    def forward(self, x: Tensor) -> Tensor:
        """Map (R, D) to (R, C)."""
        x = drop(x.to(self.weight.dtype), self.dropout if self.training else 0.0, self.source)
        return nn.functional.linear(x, self.weight, self.bias)


@register("heads")
class Linear(Head):
    """A linear map with a bias; started from directions it ranks the classes as the cosine head does."""

    name: ClassVar[str] = "linear"
    has_vectors: ClassVar[bool] = True

    def build(self, width: int, classes: int, scale: float, dropout: float) -> nn.Module:
        """Make the module."""
        return LinearHead(width, classes, dropout)

    @torch.no_grad()
    def start(self, module: nn.Module, start: Start, scale: float) -> None:
        """Start at the directions, as long as features of usual length need for logits of the scale."""
        if start.directions is not None:
            length = start.features.norm(dim=-1).mean().to(start.directions)
            module.weight.copy_(start.directions * (scale / length))  # type: ignore[operator]
