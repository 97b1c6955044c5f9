"""What a learner is: it reads the support of an episode and answers its queries."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from tunesmith.core.settings import Component
from tunesmith.fewshot.episodes import Episodes
from tunesmith.fewshot.rows import Rows
from tunesmith.models.delta import Delta

Adapts = Literal["nothing", "head", "delta"]


@dataclass(frozen=True)
class Learned:
    """What meta-training changes.

    Args:
        delta: on the model, in use; its values are what a new task starts from.
        head: of the learner; without parameters where it has none.
    """

    delta: Delta
    head: nn.Module

    def parameters(self) -> list[nn.Parameter]:
        """Return all that trains, the delta's first."""
        return [*self.delta.parameters(), *self.head.parameters()]


class Learner(Component):
    """Base of every learner. A learner's file registers one subclass with `@register("learners")`.

    `adapts` says what changes from episode to episode when it answers: "nothing" or the "head" (then features may be
    computed once for all episodes), or the "delta".
    """

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    adapts: ClassVar[Adapts] = "nothing"

    def head(self, width: int) -> nn.Module:
        """Make what is learned besides the delta.

        Args:
            width: D of the features.
        Returns:
            A module; its number of ways is never fixed.
        """
        return nn.Module()

    def logits(self, learned: Learned, rows: Rows, episodes: Episodes) -> Tensor:
        """Answer the queries of episodes.

        Args:
            learned: delta and head.
            rows: that the episodes number.
            episodes: E of them.
        Returns:
            (E, Q, N), higher is more likely; differentiable in what is learned.
        """
        raise NotImplementedError

    def loss(self, learned: Learned, rows: Rows, episodes: Episodes) -> Tensor:
        """Return the mean cross-entropy over all queries.

        Args:
            learned: delta and head.
            rows: that the episodes number.
            episodes: E of them.
        Returns:
            A scalar.
        """
        return query_loss(self.logits(learned, rows, episodes), episodes)

    def accumulate(self, learned: Learned, rows: Rows, episodes: Episodes) -> float:
        """Add the gradients of a step to what is learned.

        Args:
            learned: delta and head.
            rows: that the episodes number.
            episodes: of the step.
        Returns:
            The mean loss over the queries. [nats]
        """
        loss = self.loss(learned, rows, episodes)
        loss.backward()
        return loss.item()


class FeatureLearner(Learner):
    """Base of learners that need features alone: all rows of all episodes go through the model in one pass."""

    def answer(self, head: nn.Module, support: Tensor, ways: Tensor, query: Tensor) -> Tensor:
        """Answer from features.

        Args:
            head: from `head`.
            support: (E, S, D).
            ways: (E, S, N), 1.0 where a support row belongs to a way, else 0.
            query: (E, Q, D).
        Returns:
            (E, Q, N).
        """
        raise NotImplementedError

    def logits(self, learned: Learned, rows: Rows, episodes: Episodes) -> Tensor:
        """Run the model once and answer."""
        return self.answer(learned.head, *featured(rows, episodes))


class Temperature(nn.Module):
    """A learned positive factor.

    Args:
        start: its value before training.
    """

    def __init__(self, start: float) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(math.log(start)))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply."""
        return x * self.log.exp().to(x.dtype)


def featured(rows: Rows, episodes: Episodes) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the features of episodes in one pass of the model.

    Args:
        rows: that the episodes number.
        episodes: E of them.
    Returns:
        Of the support (E, S, D), its ways (E, S, N) as ones and zeros, of the queries (E, Q, D).
    """
    found = rows.features(torch.cat([episodes.support, episodes.query], dim=1))
    support, query = found.split([episodes.support.shape[1], episodes.query.shape[1]], dim=1)
    return support, one_hot(episodes.support_ways, episodes.ways, found), query


def one_hot(ways: Tensor, count: int, like: Tensor) -> Tensor:
    """Write ways as ones and zeros.

    Args:
        ways: (...), whole numbers.
        count: N.
        like: gives dtype and device.
    Returns:
        (..., N).
    """
    return nn.functional.one_hot(ways.to(like.device), count).to(like.dtype)


def class_means(support: Tensor, ways: Tensor) -> Tensor:
    """Take the mean of every way's support.

    Args:
        support: (E, S, D).
        ways: (E, S, N), ones and zeros.
    Returns:
        (E, N, D).
    """
    return (ways.transpose(1, 2) @ support) / ways.sum(1)[..., None]


def query_loss(logits: Tensor, episodes: Episodes) -> Tensor:
    """Return the mean cross-entropy of the queries.

    Args:
        logits: (E, Q, N).
        episodes: with the answers.
    Returns:
        A scalar.
    """
    return nn.functional.cross_entropy(logits.flatten(0, 1), episodes.query_ways.flatten().to(logits.device))
