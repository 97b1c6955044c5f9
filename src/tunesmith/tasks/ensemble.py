"""Several tuned deltas of one model that answer together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tunesmith.data.tokens import TokenRows
from tunesmith.tasks.tuned import Tuned


@dataclass
class Ensemble(Tuned):
    """Members whose probabilities are averaged: p(c) = mean_k p_k(c).

    Args:
        backbone: the opened model that all share.
        task: of all.
        head: of the first member.
        delta: of the first member.
        members: all of them, the first among them.

    Source: Lakshminarayanan et al. 2017, arXiv:1612.01474.
    """

    members: list[Tuned] = field(default_factory=list)

    @classmethod
    def of(cls, members: Sequence[Tuned]) -> Tuned:
        """Put members together.

        Args:
            members: at least one, of one model.
        Returns:
            The only member, or an ensemble.
        """
        first = members[0]
        if len(members) == 1:
            return first
        return cls(first.backbone, first.task, first.head, first.delta, list(members))

    def train(self, training: bool) -> None:
        """Switch dropout on or off everywhere.

        Args:
            training: True for a training step.
        """
        for member in self.members:
            member.train(training)

    def probabilities(self, tokens: TokenRows) -> Tensor:
        """Answer many rows, member by member.

        Args:
            tokens: the rows.
        Returns:
            (rows, C), float64, on the CPU.
        """
        return torch.stack([member.probabilities(tokens) for member in self.members]).mean(0)
