"""The sampler of episodes, and the interval over them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.core.errors import DataError
from tunesmith.evaluation.statistics import Bootstrap
from tunesmith.fewshot.episodes import EpisodeSampler, EpisodeShape
from tunesmith.fewshot.scoring import EpisodeScore


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**32))
def test_every_episode_is_what_it_says(ways: int, shots: int, queries: int, seed: int) -> None:
    labels = np.repeat(np.arange(6), 6)[np.random.default_rng(0).permutation(36)]
    drawn = EpisodeSampler(labels, list("abcdef"), EpisodeShape(ways, shots, queries), seed).draw(3, 4)
    assert drawn.support.shape == (4, ways * shots) and drawn.query.shape == (4, ways * queries)
    for number in range(4):
        rows = torch.cat([drawn.support[number], drawn.query[number]])
        assert len(set(rows.tolist())) == len(rows)  # no row twice, so none of the support is asked
        classes = torch.from_numpy(labels)[drawn.support[number]]
        asked = torch.from_numpy(labels)[drawn.query[number]]
        owner = dict(zip(drawn.support_ways[number].tolist(), classes.tolist(), strict=True))
        assert len(set(owner.values())) == ways
        assert [owner[way] for way in drawn.query_ways[number].tolist()] == asked.tolist()
        assert (torch.bincount(drawn.support_ways[number]) == shots).all()


def test_a_seed_and_a_number_decide() -> None:
    labels, names = np.repeat(np.arange(9), 8), [str(n) for n in range(9)]

    def sampler(seed: int) -> EpisodeSampler:
        return EpisodeSampler(labels, names, EpisodeShape(5, 2, 3), seed)

    whole, part = sampler(1).draw(0, 6), sampler(1).draw(4, 2)
    assert torch.equal(whole.support[4:], part.support) and torch.equal(whole[4:6].query, part.query)
    assert not torch.equal(whole.support, sampler(2).draw(0, 6).support)


def test_classes_and_rows_are_drawn_evenly() -> None:
    labels = np.repeat(np.arange(5), 4)
    drawn = EpisodeSampler(labels, list("abcde"), EpisodeShape(2, 1, 1), 0).draw(0, 2000)
    counts = torch.bincount(drawn.support.flatten(), minlength=20)  # 4000 draws over 20 rows, deviation about 14
    assert counts.min() > 140 and counts.max() < 260


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (EpisodeShape(4, 1, 1), "4-way 1-shot episodes need 4 classes, and toys holds 3. Lower ways to at most 3"),
        (EpisodeShape(2, 3, 2), "2-way 3-shot episodes with 2 queries per way take 5 rows of a class, and 1 classes of "
                                "toys have fewer: 'c' has 2"),
        (EpisodeShape(1, 1, 1), "ways=1: an episode has at least 2 ways"),
        (EpisodeShape(2, 0, 1), "shots=0"),
        (EpisodeShape(2, 1, 0), "queries=0"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn(shape: EpisodeShape, said: str) -> None:
    with pytest.raises(DataError, match=said):
        EpisodeSampler([0] * 6 + [1] * 6 + [2] * 2, ["a", "b", "c"], shape, 0, "toys")


def test_the_interval_covers_the_mean() -> None:
    draw = np.random.default_rng(0)
    inside = 0
    for trial in range(60):
        found = EpisodeScore(draw.binomial(25, 0.8, 200) / 25, 25).estimate(Bootstrap(300, 0.95, trial))
        inside += found.low <= 0.8 <= found.high
    assert 50 <= inside <= 60
    sure = EpisodeScore(np.ones(600), 25).estimate()
    assert sure.value == sure.high == 1.0 and 0.99 < sure.low < 1.0
