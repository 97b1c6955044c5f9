"""Noise on embeddings."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.regularizers.base import Regularizer


@register("regularizers")
class EmbeddingNoise(Regularizer):
    """Adds uniform noise to the embeddings of a row of L tokens while training: alpha / sqrt(L D) x U(-1, 1).

    Source: Jain et al. 2023, arXiv:2310.05914 (NEFTune), algorithm 1.
    """

    name: ClassVar[str] = "embedding-noise"
    paper: ClassVar[str] = "Jain et al. 2023, arXiv:2310.05914"
    makes_noise: ClassVar[bool] = True

    alpha: float = setting(5.0, "Length of a row's noise is at most alpha; 5 to 15 in the paper.", gt=0)

    def noise(self, shape: torch.Size, lengths: Tensor, draw: torch.Generator) -> Tensor:
        """Draw it."""
        size = self.alpha / (lengths * shape[1]).sqrt()
        return (2 * torch.rand(shape, generator=draw) - 1) * size[:, None]
