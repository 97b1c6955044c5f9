"""The power law of a learning curve: found again where it is there, with a band that holds what comes."""

import numpy as np
import pytest

from tunesmith.evaluation.learning_curve import Growth, Law, Scores, power_law
from tunesmith.evaluation.statistics import Bootstrap

ROWS = np.array([50.0, 100.0, 200.0, 400.0, 800.0])
ALL = (0.0, 1.0)


def measured(true: np.ndarray, seed: int, repeats: int = 3, answers: int = 200, noise: float = 0.01) -> Growth:
    """Answers to the same rows, some harder than others, by trainings that are better or worse by chance."""
    draw = np.random.default_rng(seed)
    hard = draw.random(answers)
    lucky = np.clip(true[:, None] + draw.normal(0, noise, (len(true), repeats)), 0, 1)
    right = (hard + draw.normal(0, 0.1, (*lucky.shape, answers)) < lucky[..., None]).astype(float)
    weights = draw.multinomial(answers, np.full(answers, 1 / answers), 200).T / answers
    scores = Scores(ROWS, right.mean(-1), right @ weights, ALL, True)
    return scores.growth(2.0, Bootstrap(seed=seed))


@pytest.mark.parametrize(("limit", "scale", "exponent"), [(0.95, 3.0, 0.5), (0.8, 20.0, 1.2), (0.4, -2.0, 0.7)])
def test_a_law_without_noise_is_found_again(limit: float, scale: float, exponent: float) -> None:
    law = Law.fit(ROWS, power_law(ROWS, limit, scale, exponent)[None], (0.0, np.inf))
    assert law.exponent[0] == pytest.approx(exponent, rel=0.05)
    assert law.at(1600.0)[0] == pytest.approx(power_law(1600.0, limit, scale, exponent), abs=1e-3)


def test_a_limit_stays_where_scores_can_be() -> None:
    straight = 0.5 + 0.1 * np.log2(ROWS / 50)
    law = Law.fit(ROWS, np.stack([straight, 1 - straight]), ALL)
    assert ((law.limit >= 0) & (law.limit <= 1)).all()
    assert law.at(1e6)[0] <= 1 and law.at(1e6)[1] >= 0


def test_the_band_holds_what_twice_the_rows_give() -> None:
    true = power_law(np.append(ROWS, 1600.0), 0.92, 2.0, 0.5)
    found = [measured(true[:-1], seed) for seed in range(30)]
    held = [one.ahead.low <= true[-1] <= one.ahead.high for one in found]
    assert sum(held) >= 24  # 0.8 of a band of 0.95
    assert sum(one.clear and one.gain.low > 0 for one in found) >= 20
    assert sum(one.holds is True for one in found) >= 24


def test_a_flat_curve_promises_nothing() -> None:
    found = [measured(np.full(5, 0.7), seed) for seed in range(20)]
    assert sum(one.clear for one in found) <= 8
    assert all(abs(one.gain.value) < 0.05 for one in found)


def test_a_curve_that_leaves_its_law_is_told() -> None:
    found = [measured(np.array([0.3, 0.5, 0.65, 0.72, 0.3]), seed, answers=2000) for seed in range(5)]
    assert all(one.holds is False for one in found)


def test_lower_may_be_better_and_few_points_are_not_checked() -> None:
    draw = np.random.default_rng(0)
    losses = power_law(ROWS[:3], 0.2, -9.0, 0.5)[:, None] + draw.normal(0, 0.005, (3, 3))
    tables = losses[..., None] + draw.normal(0, 0.005, (1, 1, 200))
    found = Scores(ROWS[:3], losses, tables, (0.0, np.inf), False).growth(2.0, Bootstrap())
    assert found.gain.low > 0 and found.ahead.value < found.points[-1].value
    assert found.check is None and found.holds is None


def test_more_draws_and_fewer_resamples_that_are_defined() -> None:
    tables = np.full((4, 2, 50), 0.5)
    tables[:, 1] = 0.7
    tables[2, 0, 7] = np.nan
    scores = Scores(ROWS[:4], tables[:, :, 0], tables, ALL, True)
    means = scores.means(0)
    assert means.shape == (50, 4) and means[0] == pytest.approx(0.6)  # as measured, and 49 resamples
    assert means[1:].std(0) == pytest.approx(np.full(4, 0.1), abs=0.03)  # of two: sqrt(2) times what they scatter
