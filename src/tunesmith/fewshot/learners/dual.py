"""Dual learning: two learners of different kind answer the same queries and are pulled towards each other."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.fewshot.episodes import Episodes
from tunesmith.fewshot.learners.base import Learned, Learner, Temperature, class_means, featured, query_loss
from tunesmith.fewshot.rows import Rows


@register("learners")
class Dual(Learner):
    """Class means and ridge regression over one encoder, each with the other as its teacher.

    loss = CE(means) + CE(ridge) + agreement * (KL(means || ridge) + KL(ridge || means)) / 2

    The two fail differently. Class means ignore how features vary together: they hold with one shot and are crude with
    many. Ridge regression, solved in closed form, uses all directions in which the support differs: it is fine with
    many shots and fits chance with one. Where they disagree on a query, the encoder has left a direction in which the
    answer depends on the learner; agreement takes that direction away, also on queries that both get right or wrong.
    The answer is the mean of their log probabilities.

    Source: mutual learning: Zhang et al. 2017, arXiv:1706.00384; ridge regression in episodes: Bertinetto et al. 2018,
    arXiv:1805.08136. The pair is ours.
    """

    name: ClassVar[str] = "dual"
    paper: ClassVar[str] = "Zhang et al. 2017, arXiv:1706.00384"

    agreement: float = setting(1.0, "Weight of the divergence between the two.", ge=0)
    ridge: float = setting(1.0, "Penalty of the regression before training.", gt=0)

    def head(self, width: int) -> nn.Module:
        """Make the factors of both and the penalty."""
        return nn.ModuleDict(
            {"means": Temperature(1.0), "regression": Temperature(10.0), "penalty": Temperature(self.ridge)}
        )

    def logits(self, learned: Learned, rows: Rows, episodes: Episodes) -> Tensor:
        """Answer by the mean of both log probabilities."""
        return torch.stack(self._both(learned.head, rows, episodes)).mean(0)

    def loss(self, learned: Learned, rows: Rows, episodes: Episodes) -> Tensor:
        """Teach both, and each the other."""
        means, regression = self._both(learned.head, rows, episodes)
        apart = _divergence(means, regression) + _divergence(regression, means)
        return query_loss(means, episodes) + query_loss(regression, episodes) + 0.5 * self.agreement * apart

    def _both(self, head: nn.Module, rows: Rows, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Return the log probabilities of both learners, (E, Q, N) each."""
        support, ways, query = featured(rows, episodes)
        assert isinstance(head, nn.ModuleDict)
        distances = torch.cdist(query, class_means(support, ways)).square()
        answers = ridge_answers(support, ways, query, head["penalty"](support.new_ones(())))
        return head["means"](-distances).log_softmax(-1), head["regression"](answers).log_softmax(-1)


def ridge_answers(support: Tensor, ways: Tensor, query: Tensor, penalty: Tensor) -> Tensor:
    """Fit ridge regression to the ways of the support and apply it to the queries.

    W = X^T (X X^T + penalty I)^-1 Y with a column of ones in X, the form that inverts (S, S) and not (D, D).

    Args:
        support: (E, S, D).
        ways: (E, S, N), the targets.
        query: (E, Q, D).
        penalty: a positive scalar.
    Returns:
        (E, Q, N).
    """
    known = torch.cat([support, torch.ones_like(support[..., :1])], dim=-1)
    asked = torch.cat([query, torch.ones_like(query[..., :1])], dim=-1)
    inner = known @ known.transpose(1, 2)  # (E, S, S)
    eye = torch.eye(inner.shape[-1], dtype=inner.dtype, device=inner.device)
    return asked @ (known.transpose(1, 2) @ torch.linalg.solve(inner + penalty * eye, ways))


def _divergence(first: Tensor, second: Tensor) -> Tensor:
    """KL(first || second), mean over the queries; the first is the teacher and gets no gradient."""
    teacher = first.detach()
    return (teacher.exp() * (teacher - second)).sum(-1).mean()
