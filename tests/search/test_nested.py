"""The score of a choice over folds, on folds that did not choose."""

from typing import Any

import numpy as np
import pytest

from tunesmith.search.nested import nested, sentence
from tunesmith.search.trials import Outcome, StudyTrial


def trial(number: int, folds: list[list[tuple[int, float]]], **outcome: Any) -> StudyTrial:
    best = [max(score for _, score in one) for one in folds]
    value = float(np.mean(best)) if best else 0.5
    told = Outcome(**{"state": "complete", "value": value, "folds": folds, **outcome})
    return StudyTrial(number, 0, 1, {}, [], [], 0.0, None, told)


def test_each_fold_is_scored_by_what_the_others_choose() -> None:
    trials = [
        trial(0, [[(1, 0.9), (2, 0.1)], [(1, 0.2), (2, 0.3)], [(1, 0.4), (2, 0.5)]]),
        trial(1, [[(1, 0.3), (2, 0.4)], [(1, 0.8), (2, 0.6)], [(1, 0.5), (2, 0.4)]]),
    ]
    found = nested(trials, trials[1], 3, higher_is_better=True)
    assert found is not None
    # fold 0: the others' means are 0.3, 0.4, 0.65, 0.5; fold 1: 0.65, 0.3, 0.4, 0.4; fold 2: 0.55, 0.2, 0.55, 0.5
    assert [(one.trial, one.epoch, one.score) for one in found.choices] == [(1, 1, 0.3), (0, 1, 0.2), (0, 1, 0.4)]
    assert found.value == pytest.approx(0.3) and found.flattered == pytest.approx((0.4 + 0.8 + 0.5) / 3)
    said = sentence(found, "accuracy", "30 %", "57 %")
    assert "one of the trials 0, 1" in said and "accuracy is 30 % (not 57 %)" in said
    losses = nested(trials, trials[1], 3, higher_is_better=False)
    assert losses is not None and losses.choices[0].trial == 0 and losses.choices[0].epoch == 1


def test_draws_do_not_choose_for_each_other() -> None:
    """The second draw's folds hold rows of the first one's fold 0, so they may not choose for it."""
    folds = [[(1, 0.5)], [(1, 0.5)], [(1, 0.0)], [(1, 0.0)]]
    other = [[(1, 0.4)], [(1, 0.4)], [(1, 1.0)], [(1, 1.0)]]
    found = nested([trial(0, folds), trial(1, other)], trial(1, other), 2, higher_is_better=True)
    assert found is not None and [one.trial for one in found.choices] == [0, 0, 1, 1]


def test_noise_that_was_chosen_does_not_flatter() -> None:
    """Forty trials of one true score, 0.7: the best one's own mean is too high, the nested one is not."""
    draw, flattered, honest = np.random.default_rng(0), [], []
    for _ in range(40):
        scores = draw.normal(0.7, 0.05, (40, 5, 4))
        trials = [
            trial(number, [[(epoch, float(one[epoch])) for epoch in range(4)] for one in own])
            for number, own in enumerate(scores)
        ]
        best = max(trials, key=lambda one: one.outcome.value or 0.0)
        found = nested(trials, best, 5, higher_is_better=True)
        assert found is not None
        flattered.append(found.flattered)
        honest.append(found.value)
    assert np.mean(flattered) > 0.78 and abs(np.mean(honest) - 0.7) < 0.01


def test_what_has_no_folds_or_no_common_epoch_has_no_estimate() -> None:
    bare = trial(0, [])
    assert nested([bare], bare, 0, True) is None
    torn = trial(0, [[(1, 0.5)], [(2, 0.5)]])
    assert nested([torn], torn, 2, True) is None
    failed = trial(1, [[(1, 0.5)], [(1, 0.5)]], state="failed", value=None)
    assert nested([failed], failed, 2, True) is None
