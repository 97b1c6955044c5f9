"""A trained vector per class that starts between the class mean and the label's text."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.tasks.heads.base import Head, Start, label_mix
from tunesmith.tasks.heads.cosine import CosineHead


@register("heads")
class Proxies(Head):
    """The cosine head, each vector started between the mean of the class's rows and the text of its label."""

    name: ClassVar[str] = "proxies"
    paper: ClassVar[str] = "Movshovitz-Attias et al. 2017, arXiv:1703.07464"
    has_vectors: ClassVar[bool] = True
    needs_label_text: ClassVar[bool] = True

    label_weight: float = setting(0.5, "Share of the label's text in the start.", unit="fraction", ge=0, le=1)

    def build(self, width: int, classes: int, scale: float, dropout: float) -> nn.Module:
        """Make the module."""
        return CosineHead(width, classes, scale, dropout)

    @torch.no_grad()
    def start(self, module: nn.Module, start: Start, scale: float) -> None:
        """Mix the directions of the class mean and of the label's text."""
        module.weight.copy_(label_mix(start, module.weight, self.label_weight))  # type: ignore[operator,arg-type]
