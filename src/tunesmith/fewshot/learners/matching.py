"""Matching networks: queries attend to the support rows and take over their labels."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.fewshot.learners.base import FeatureLearner, Temperature


@register("learners")
class Matching(FeatureLearner):
    """A label's probability is the attention that its support rows get: softmax of scale * cosine over the support.

    Source: Vinyals et al. 2016, arXiv:1606.04080, eq. 1. Differs: the scale is learned; no full context embeddings.
    """

    name: ClassVar[str] = "matching"
    paper: ClassVar[str] = "Vinyals et al. 2016, arXiv:1606.04080"

    scale: float = setting(10.0, "Factor of the cosines before training.", gt=0)

    def head(self, width: int) -> nn.Module:
        """Make the factor."""
        return Temperature(self.scale)

    def answer(self, head: nn.Module, support: Tensor, ways: Tensor, query: Tensor) -> Tensor:
        """Sum the attention of every way; the logits are log probabilities."""
        normal = nn.functional.normalize
        scores = head(normal(query, dim=-1) @ normal(support, dim=-1).transpose(1, 2))  # (E, Q, S)
        own = scores[..., None].masked_fill(ways[:, None] == 0, -float("inf"))  # (E, Q, S, N)
        return own.logsumexp(2) - scores.logsumexp(2)[..., None]
