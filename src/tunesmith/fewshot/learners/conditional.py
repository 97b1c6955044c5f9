"""A model-based learner: a network reads the support and writes the classifier in one pass."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.fewshot.learners.base import FeatureLearner, class_means


@register("learners")
class Conditional(FeatureLearner):
    """A network turns each class's support, beside the whole support, into that class's weights and bias.

    As in a conditional neural process the support enters as means of what a network makes of its rows, so that its
    order does not matter; as in VERSA what comes out are the weights of a linear classifier. No gradient is taken to
    learn a new task. Before training the written weights are the class means.

    Source: Garnelo et al. 2018, arXiv:1807.01613; Gordon et al. 2018, arXiv:1805.09921.
    """

    name: ClassVar[str] = "conditional"
    paper: ClassVar[str] = "Garnelo et al. 2018, arXiv:1807.01613"

    inner_width: int = setting(128, "Width of the networks.", unit="count", ge=1)

    def head(self, width: int) -> nn.Module:
        """Make the two networks."""
        return Writer(width, self.inner_width)

    def answer(self, head: nn.Module, support: Tensor, ways: Tensor, query: Tensor) -> Tensor:
        """Write the classifier and apply it."""
        weight, bias = head(support, ways)
        return query @ weight.transpose(1, 2) + bias[:, None]


class Writer(nn.Module):
    """Writes a linear classifier from a support set.

    Args:
        width: D of the features.
        inside: width of the networks.
    """

    def __init__(self, width: int, inside: int) -> None:
        super().__init__()
        self.read = nn.Sequential(nn.Linear(width, inside), nn.ReLU(), nn.Linear(inside, inside))
        self.write = nn.Sequential(nn.Linear(2 * inside, inside), nn.ReLU(), nn.Linear(inside, width + 1))
        nn.init.zeros_(self.write[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.write[-1].bias)  # type: ignore[arg-type]

    def forward(self, support: Tensor, ways: Tensor) -> tuple[Tensor, Tensor]:
        """Read a support set.

        Args:
            support: (E, S, D).
            ways: (E, S, N), ones and zeros.
        Returns:
            Weights (E, N, D) and biases (E, N).
        """
        own = class_means(self.read(support), ways)  # (E, N, inside)
        others = own.mean(1, keepdim=True).expand_as(own)
        written = self.write(torch.cat([own, others], dim=-1))
        means = class_means(support, ways)
        length = means.norm(dim=-1)
        start = means / length.mean(1)[:, None, None].clamp_min(1e-12)
        return start + written[..., :-1], written[..., -1] - 0.5 * (start * means).sum(-1)
