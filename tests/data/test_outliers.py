"""Rows far from all others are found; copies, labels that lie apart and small data are left alone."""

import numpy as np
import pytest

from tunesmith.core.registry import components
from tunesmith.data.cleaning.base import Filter, Rows, Verdict
from tunesmith.data.outliers import neighbour_distances

D = 24


def judged(features: np.ndarray, labels: np.ndarray, **settings: object) -> dict[int, Verdict]:
    step = components("cleaning")["outliers"](**settings)
    assert isinstance(step, Filter)
    return step.judge(Rows([], labels, [str(code) for code in range(labels.max() + 1)], 0, lambda: features))


@pytest.fixture(scope="module")
def planted() -> tuple[np.ndarray, np.ndarray]:
    """Four labels of 60 rows around a middle each, and four rows of any direction behind them."""
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 60)
    usual = draw.normal(size=(4, D))[labels] + 0.4 * draw.normal(size=(240, D))
    return np.concatenate([usual, draw.normal(size=(4, D))]), np.concatenate([labels, np.arange(4)])


def written_out(features: np.ndarray, labels: np.ndarray, neighbours: int) -> list[float]:
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    table = np.sort(np.linalg.norm(unit[:, None] - unit[None], axis=2), axis=1)  # place 0: the row itself
    places = [min(neighbours, int((labels == label).sum()) - 1) for label in labels]
    own = np.array([table[row, place] for row, place in enumerate(places)])
    found = []
    for row, place in enumerate(places):
        middle = np.median(table[:, place])
        spread = 1.4826 * np.median(np.abs(table[:, place] - middle))
        found.append((own[row] - max(middle, np.median(own[labels == labels[row]]))) / spread)
    return found


def test_scores_are_their_definition_written_out(planted: tuple[np.ndarray, np.ndarray]) -> None:
    features, labels = planted
    uneven = np.where(np.arange(244) < 6, 4, labels)
    for own, neighbours in ((labels, 5), (uneven, 20)):
        found = neighbour_distances(features, own, neighbours, seed=0).scores
        assert found == pytest.approx(written_out(features, own, neighbours), abs=1e-6)


def test_planted_rows_alone_are_dropped(planted: tuple[np.ndarray, np.ndarray]) -> None:
    found = judged(*planted)
    assert set(found) == {240, 241, 242, 243} and {one.what for one in found.values()} == {"dropped"}
    assert "neighbour 20 lies" in found[240].why and "spreads more" in found[240].why
    assert {one.what for one in judged(*planted, do="list").values()} == {"listed"}


def test_no_more_than_a_share_is_dropped_and_the_rest_said(planted: tuple[np.ndarray, np.ndarray]) -> None:
    found = judged(*planted, most=0.01)
    kept = [one for one in found.values() if one.what == "listed"]
    assert len(found) == 4 and len(kept) == 2
    assert kept[0].why.endswith("; kept, as 2 of 244 rows may be dropped (most)")
    scores = neighbour_distances(*planted, 20, seed=0).scores
    assert {row for row, one in found.items() if one.what == "dropped"} == set(np.argsort(-scores)[:2].tolist())


@pytest.mark.parametrize("rows", [1, 2, 3, 30])
def test_a_rare_label_that_lies_apart_is_left_alone(planted: tuple[np.ndarray, np.ndarray], rows: int) -> None:
    features, labels = planted[0][:240], planted[1][:240]
    draw = np.random.default_rng(1)
    apart = draw.normal(size=(rows, D))  # as far from each other as from all others
    found = judged(np.concatenate([features, apart]), np.concatenate([labels, np.full(rows, 4)]), most=0.5)
    assert not [row for row in found if row >= 240]


def test_copies(planted: tuple[np.ndarray, np.ndarray]) -> None:
    """A few copies do not hide an outlier; a text that stands there often is none; all the same text is no error."""
    features, labels = planted
    few = np.concatenate([features, np.repeat(features[-1:], 3, 0)]), np.concatenate([labels, np.repeat(labels[-1], 3)])
    assert {243, 244, 245, 246} <= set(judged(*few, most=0.5))
    many = np.concatenate([features, np.repeat(features[-1:], 30, 0)]), np.concatenate([labels, np.full(30, 3)])
    assert not set(judged(*many, most=0.5)) & set(range(243, 274))
    assert judged(np.ones((50, D)), np.zeros(50, np.int64)) == {}


def test_fewer_rows_than_neighbours(planted: tuple[np.ndarray, np.ndarray]) -> None:
    assert judged(np.ones((1, D)), np.zeros(1, np.int64)) == {}
    rows = [*range(7), 240]
    found = judged(planted[0][rows], planted[1][rows])
    assert [one.what for one in found.values()] == ["listed"] * len(found) and 7 in found
    assert "neighbour 4 lies" in found[7].why and "as 0 of 8 rows may be dropped" in found[7].why


def test_of_many_rows_a_draw_is_compared_with(planted: tuple[np.ndarray, np.ndarray]) -> None:
    features, labels = planted
    found = neighbour_distances(features, labels, 10, seed=0, most=120)
    assert set(np.argsort(-found.scores)[:4].tolist()) == {240, 241, 242, 243}
    assert (found.own > 0).all() and found.places.tolist() == [10] * 244
