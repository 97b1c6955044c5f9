"""Reptile: move the start towards where training on a task ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.fewshot.adapting import Descent, Task
from tunesmith.fewshot.episodes import Episodes
from tunesmith.fewshot.learners.base import Learned
from tunesmith.fewshot.learners.descending import Descending
from tunesmith.fewshot.rows import Rows


@register("learners")
class Reptile(Descending):
    """Train on all rows of an episode, and take the way from the start to the end as the gradient.

    grad = (theta - theta_k) / (rate * k), the mean gradient along the k steps; it goes to the optimizer of the run.

    Source: Nichol et al. 2018, arXiv:1803.02999, algorithm 2. Differs: the head starts at zero in every episode; full
    batches of plain gradient descent.
    """

    name: ClassVar[str] = "reptile"
    paper: ClassVar[str] = "Nichol et al. 2018, arXiv:1803.02999"

    inner_steps: int = setting(3, "Steps on an episode's rows in training.", unit="count", ge=2)

    @torch.no_grad()
    def accumulate(self, learned: Learned, rows: Rows, episodes: Episodes) -> float:
        """Train on every episode by itself; support and queries are all rows of its task."""
        task, total = Task(learned.delta, rows, episodes.ways), 0.0
        descent = Descent(self.inner_steps, self.inner_rate, self.head_rate)
        numbers = torch.cat([episodes.support, episodes.query], dim=1)
        ways = torch.cat([episodes.support_ways, episodes.query_ways], dim=1)
        for own, wanted in zip(numbers, ways, strict=True):
            ended = task.fit(descent, own, wanted)
            loss = nn.functional.cross_entropy(task.answer(ended, own), wanted.to(ended[0].device))
            add_way(task.fast.own, ended[2:], 1 / (self.inner_rate * self.inner_steps * len(episodes)))
            total += loss.item() / len(episodes)
        return total


def add_way(start: Sequence[nn.Parameter], end: Sequence[Tensor], factor: float) -> None:
    """Add factor * (start - end) to the gradients of the start.

    Args:
        start: parameters.
        end: where training from them ended.
        factor: of the way.
    """
    for own, ended in zip(start, end, strict=True):
        way = factor * (own.detach() - ended.detach())
        own.grad = way if own.grad is None else own.grad + way
