"""Prototypical networks: every class is the mean of its support."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.fewshot.learners.base import FeatureLearner, Temperature, class_means


@register("learners")
class Prototypical(FeatureLearner):
    """The nearest class mean wins: logits = -scale * squared distance to the mean of the class's support.

    Source: Snell et al. 2017, arXiv:1703.05175, eq. 1 and 2. Differs: the scale is learned.
    """

    name: ClassVar[str] = "prototypical"
    paper: ClassVar[str] = "Snell et al. 2017, arXiv:1703.05175"

    scale: float = setting(1.0, "Factor of the squared distances before training.", gt=0)

    def head(self, width: int) -> nn.Module:
        """Make the factor."""
        return Temperature(self.scale)

    def answer(self, head: nn.Module, support: Tensor, ways: Tensor, query: Tensor) -> Tensor:
        """Measure distances to the class means."""
        means = class_means(support, ways)
        squares = (
            query.square().sum(-1)[..., None] + means.square().sum(-1)[:, None] - 2 * query @ means.transpose(1, 2)
        )
        found: Tensor = head(-squares)
        return found
