"""How well a learner solves new tasks: its accuracy over many episodes, with an interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunesmith.core.arrays import Array, Codes
from tunesmith.core.progress import Bar
from tunesmith.evaluation.statistics import Bootstrap, Estimate, wilson
from tunesmith.fewshot.episodes import Episodes, EpisodeSampler
from tunesmith.fewshot.learners.base import Learned, Learner
from tunesmith.fewshot.rows import Rows


@dataclass(frozen=True)
class EpisodeScore:
    """Accuracy over episodes.

    Args:
        accuracies: (episodes,), each over an episode's queries. [fraction]
        queries: of an episode. [count]
        by_class: share of right answers by class code, over all episodes that asked it. [fraction]
    """

    accuracies: Array
    queries: int
    by_class: Mapping[int, float] = field(default_factory=dict)

    def estimate(self, bootstrap: Bootstrap | None = None) -> Estimate:
        """Return the mean with its interval; what is resampled are episodes.

        Args:
            bootstrap: how to resample; 1,000 times at 95 % when None.
        Returns:
            The estimate. It says how far the mean over such episodes is known, not how other classes would do.
        """
        bootstrap, rows = bootstrap or Bootstrap(), len(self.accuracies)
        means = np.array([weights @ self.accuracies / rows for weights in bootstrap.weights(rows)])
        low, high = bootstrap.interval(means)
        value = float(self.accuracies.mean())
        if low == high:
            low, high = wilson(value, rows, bootstrap.confidence)
        return Estimate(value, low, high)


def score(
    learner: Learner, learned: Learned, rows: Rows, sampler: EpisodeSampler, count: int, bar: Bar
) -> EpisodeScore:
    """Answer episodes.

    Args:
        learner: what answers.
        learned: delta and head.
        rows: that the sampler numbers.
        sampler: of the episodes.
        count: how many. [count]
        bar: told of the episodes done.
    Returns:
        The accuracy of each.
    """
    drawn = sampler.draw(0, count)
    known = readied(learner, rows, drawn)
    found: list[Any] = []
    for start in range(0, count, 20):
        part = drawn[start : start + 20]
        found.append(answers(learner, learned, known, part).argmax(-1).cpu().eq(part.query_ways).double())
        bar(len(part))
    right = torch.cat(found).numpy()
    return EpisodeScore(right.mean(1), drawn.query.shape[1], _by_class(right, sampler.codes[drawn.query.numpy()]))


def _by_class(right: Array, codes: Codes) -> dict[int, float]:
    asked, answered = np.bincount(codes.ravel()), np.bincount(codes.ravel(), right.ravel())
    return {int(code): float(answered[code] / asked[code]) for code in np.flatnonzero(asked)}


@torch.no_grad()
def answers(learner: Learner, learned: Learned, rows: Rows, episodes: Episodes) -> Tensor:
    """Answer episodes; nothing is kept for gradients.

    Args:
        learner: what answers.
        learned: delta and head.
        rows: that the episodes number.
        episodes: E of them.
    Returns:
        Logits, (E, Q, N).
    """
    return learner.logits(learned, rows, episodes)


def readied(learner: Learner, rows: Rows, episodes: Episodes) -> Rows:
    """Compute features once where nothing below them changes from episode to episode.

    Args:
        learner: what will answer.
        rows: that the episodes number.
        episodes: all of them.
    Returns:
        Rows of the same numbers.
    """
    if learner.adapts == "delta":
        return rows
    return rows.known(torch.cat([episodes.support.flatten(), episodes.query.flatten()]))
