"""ANIL: as MAML, but a new task takes steps on the head alone."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.fewshot.adapting import Descent, unit
from tunesmith.fewshot.learners.base import Adapts, FeatureLearner


@register("learners")
class Anil(FeatureLearner):
    """The delta is learned so that steps on a linear head over its features solve a new task.

    All rows of all episodes go through the model once; the steps of all episodes are taken together on the features.

    Source: Raghu et al. 2019, arXiv:1909.09157. Differs: the head starts at zero, for any number of ways.
    """

    name: ClassVar[str] = "anil"
    paper: ClassVar[str] = "Raghu et al. 2019, arXiv:1909.09157"
    adapts: ClassVar[Adapts] = "head"

    order: Literal["first", "second"] = setting("second", "Whether gradients go through the steps.")
    inner_steps: int = setting(10, "Steps on the support.", unit="count", ge=1)
    head_rate: float = setting(2.0, "Learning rate of the head in these steps, per way.", gt=0)

    def answer(self, head: nn.Module, support: Tensor, ways: Tensor, query: Tensor) -> Tensor:
        """Fit every episode's head and answer."""
        wanted, support, query = ways.argmax(-1), unit(support), unit(query)
        blank = [support.new_zeros(len(ways), ways.shape[-1], size).requires_grad_() for size in (support.shape[-1], 1)]

        def loss(own: list[Tensor]) -> Tensor:
            logits = _applied(own, support)
            each = nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none")
            return each.view(wanted.shape).mean(1).sum()  # every episode's gradient is its own

        descent = Descent(self.inner_steps, 0.0, self.head_rate * ways.shape[-1], self.order == "second")
        return _applied(descent.run(blank, loss), query)


def _applied(own: list[Tensor], features: Tensor) -> Tensor:
    """Map (E, rows, D) by weights (E, N, D) and biases (E, N, 1) to (E, rows, N)."""
    return features @ own[0].transpose(1, 2) + own[1].transpose(1, 2)
