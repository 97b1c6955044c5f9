"""Steps of gradient descent on the support of an episode: what MAML, ANIL and Reptile share.

The linear head of a new task starts at zero for every way, so that the number of ways is free and their order cannot
matter; the steps tell the ways apart. Nothing is lost by that: a start that is the same for all ways, learned or not
(Ye and Chao 2022, arXiv:2106.16245), adds the same to every logit of a row. The head reads features that are centred
and of unit length, so that its learning rate means the same for every model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from tunesmith.core.settings import setting
from tunesmith.fewshot.episodes import Episodes
from tunesmith.fewshot.learners.base import Adapts, Learned, Learner
from tunesmith.fewshot.rows import FastWeights, Rows
from tunesmith.models.delta import Delta


@dataclass(frozen=True)
class Descent:
    """Plain gradient descent.

    Args:
        steps: how many. [count]
        rate: learning rate of what is adapted.
        head_rate: learning rate of the head, the first two of the tensors.
        through: keep the graph, so that the result is differentiable through the steps (second order).
    """

    steps: int
    rate: float
    head_rate: float
    through: bool = False

    def run(self, start: Sequence[Tensor], loss: Callable[[list[Tensor]], Tensor]) -> list[Tensor]:
        """Descend.

        Args:
            start: head weights and biases, then what else is adapted.
            loss: of such tensors, a scalar.
        Returns:
            Where the steps end, as functions of the start: through the steps, or by the identity in first order.
        """
        own, through = list(start), self.through and torch.is_grad_enabled()
        for _ in range(self.steps):
            leaves = own if through else [tensor.detach().requires_grad_() for tensor in own]
            with torch.enable_grad():
                grads = torch.autograd.grad(loss(leaves), leaves, create_graph=through, allow_unused=True)
            own = [
                tensor if grad is None else tensor - (self.rate if place > 1 else self.head_rate) * grad
                for place, (tensor, grad) in enumerate(zip(own, grads, strict=True))
            ]
        return own


def unit(features: Tensor) -> Tensor:
    """Centre each row's features and scale them to unit length.

    Args:
        features: (..., D).
    Returns:
        (..., D).
    """
    width = features.shape[-1]
    return nn.functional.layer_norm(features, (width,)) / width**0.5


def blank_head(ways: int, width: int, like: Tensor) -> list[Tensor]:
    """Return the head of a new task.

    Args:
        ways: N.
        width: D.
        like: gives dtype and device.
    Returns:
        Weights (N, D) and biases (N,), zero.
    """
    return [like.new_zeros(ways, width).requires_grad_(), like.new_zeros(ways).requires_grad_()]


class Task:
    """One episode before a delta whose values may be replaced.

    Args:
        delta: in use.
        rows: that are numbered.
        ways: N.
    """

    def __init__(self, delta: Delta, rows: Rows, ways: int) -> None:
        self.fast, self.rows, self.ways = FastWeights(delta), rows, ways

    def start(self) -> list[Tensor]:
        """Return a blank head and the delta's parameters."""
        return [*blank_head(self.ways, self.rows.width, self.fast.own[0]), *self.fast.own]

    def answer(self, tensors: list[Tensor], numbers: Tensor) -> Tensor:
        """Answer rows.

        Args:
            tensors: as from `start`.
            numbers: (Q,), of the rows.
        Returns:
            (Q, N).
        """
        weight, bias, *delta = tensors
        with self.fast.standing_in(delta):
            return nn.functional.linear(unit(self.rows.features(numbers)), weight, bias)

    def fit(self, descent: Descent, numbers: Tensor, ways: Tensor) -> list[Tensor]:
        """Descend on labelled rows.

        Args:
            descent: how; the rate of the head is multiplied by the number of ways.
            numbers: (S,), of the rows.
            ways: (S,).
        Returns:
            Tensors as from `start`.
        """
        wanted, (weight, bias, *delta) = ways.to(self.fast.own[0].device), self.start()

        def loss(own: list[Tensor]) -> Tensor:
            return nn.functional.cross_entropy(self.answer([*own, *delta][: 2 + len(delta)], numbers), wanted)

        descent = replace(
            descent, head_rate=descent.head_rate * self.ways
        )  # a way's share of the mean loss is 1 / ways
        # Through a blank head no gradient reaches the delta, so the first step is the head's alone.
        head = replace(descent, steps=1).run([weight, bias], loss)
        return replace(descent, steps=descent.steps - 1).run([*head, *delta], loss)


def answers_after(descent: Descent, delta: Delta, rows: Rows, episodes: Episodes) -> Tensor:
    """Descend on every episode's support by itself and answer its queries.

    Args:
        descent: how.
        delta: in use.
        rows: that the episodes number.
        episodes: E of them.
    Returns:
        (E, Q, N).
    """
    task, found = Task(delta, rows, episodes.ways), []
    for support, ways, query in zip(episodes.support, episodes.support_ways, episodes.query, strict=True):
        found.append(task.answer(task.fit(descent, support, ways), query))
    return torch.stack(found)


class DescendingLearner(Learner):
    """Base of learners that take steps on the delta and a head for every new task."""

    adapts: ClassVar[Adapts] = "delta"

    answer_steps: int = setting(5, "Steps on the support of a new task.", unit="count", ge=1)
    inner_rate: float = setting(0.05, "Learning rate of the delta in these steps.", gt=0)
    head_rate: float = setting(2.0, "Learning rate of the head in these steps, per way.", gt=0)

    def logits(self, learned: Learned, rows: Rows, episodes: Episodes) -> Tensor:
        """Take steps on every support and answer; nothing is learned from it."""
        descent = Descent(self.answer_steps, self.inner_rate, self.head_rate)
        return answers_after(descent, learned.delta, rows, episodes).detach()
