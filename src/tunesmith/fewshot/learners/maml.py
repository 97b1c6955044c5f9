"""MAML: learn the values from which a few steps of gradient descent solve a new task."""

from __future__ import annotations

from contextlib import nullcontext
from typing import ClassVar, Literal

from torch import Tensor

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.fewshot.adapting import Descent, answers_after
from tunesmith.fewshot.episodes import Episodes
from tunesmith.fewshot.learners.base import Learned, query_loss
from tunesmith.fewshot.learners.descending import Descending
from tunesmith.fewshot.rows import Rows


@register("learners")
class Maml(Descending):
    """What is learned is where the delta starts; a new task takes steps on its support from there.

    theta' = theta - rate * grad L(support; theta), repeated; the loss is L(queries; theta') as a function of theta.
    The first order leaves out how the steps themselves depend on theta.

    Source: Finn et al. 2017, arXiv:1703.03400, algorithm 2. Differs: the head starts at zero, for any number of ways.
    """

    name: ClassVar[str] = "maml"
    paper: ClassVar[str] = "Finn et al. 2017, arXiv:1703.03400"

    order: Literal["first", "second"] = setting("second", "Whether gradients go through the steps.")

    def loss(self, learned: Learned, rows: Rows, episodes: Episodes) -> Tensor:
        """Return the loss of the queries after the steps."""
        descent = Descent(self.inner_steps, self.inner_rate, self.head_rate, self.order == "second")
        return query_loss(answers_after(descent, learned.delta, rows, episodes), episodes)

    def accumulate(self, learned: Learned, rows: Rows, episodes: Episodes) -> float:
        """Add gradients, one episode after another: the graph of one is held at a time."""
        total = 0.0
        with rows.twice() if self.order == "second" else nullcontext():
            for number in range(len(episodes)):
                loss = self.loss(learned, rows, episodes[number : number + 1]) / len(episodes)
                loss.backward()
                total += loss.item()
        return total
