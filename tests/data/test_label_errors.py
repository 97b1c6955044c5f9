"""Confident learning finds labels that were flipped, and agrees with the definition written out."""

import numpy as np
import pytest

from tunesmith.data.cleaning.base import Rows
from tunesmith.data.cleaning.label_errors import LabelErrors
from tunesmith.data.label_errors import out_of_fold, suspicious


def written_out(table: np.ndarray, labels: np.ndarray, odds: float) -> list[int]:
    classes = table.shape[1]
    usual = [np.mean([table[i, j] for i in range(len(labels)) if labels[i] == j]) for j in range(classes)]
    found = []
    for row, given in zip(table, labels, strict=True):
        best = max(range(classes), key=lambda j: row[j] / usual[j])
        far = row[best] / usual[best] >= odds * row[given] / usual[given]
        found.append(int(best) if best != given and far else -1)
    return found


@pytest.mark.parametrize("odds", [1, 5])
def test_suspicious_is_its_definition_written_out(odds: float) -> None:
    draw = np.random.default_rng(0)
    table = draw.dirichlet(np.ones(5) / 2, 200)
    labels = draw.integers(0, 5, 200)
    found = suspicious(table, labels, odds).tolist()
    assert found == written_out(table, labels, odds) and 0 < found.count(-1) < 200


@pytest.fixture(scope="module")
def noisy() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    right = np.repeat(np.arange(4), 60)
    features = draw.normal(size=(4, 16))[right] + 0.4 * draw.normal(size=(240, 16))
    flipped = draw.random(240) < 0.2
    given = np.where(flipped, (right + draw.integers(1, 4, 240)) % 4, right)
    return features, given, right


def test_flipped_labels_are_found_with_the_right_suggestion(noisy: tuple[np.ndarray, ...]) -> None:
    features, given, right = noisy
    names = ["a", "b", "c", "d"]
    rows = Rows([], given, names, seed=0, features=lambda: features)
    found = LabelErrors(do="correct").judge(rows)
    wrong = set(np.flatnonzero(given != right).tolist())
    assert len(wrong & set(found)) >= 0.8 * len(wrong) and len(wrong & set(found)) >= 0.95 * len(found)
    for row in wrong & set(found):
        assert found[row].label == right[row]
        assert f"given {names[given[row]]}, suggested {names[right[row]]}" in found[row].why
    assert {one.what for one in LabelErrors().judge(rows).values()} == {"dropped"}
    assert all(one.label is None for one in LabelErrors(do="list").judge(rows).values())


def test_no_probe_sees_the_row_it_judges(noisy: tuple[np.ndarray, ...]) -> None:
    """One row changed moves no probability of its own fold."""
    features, given, _ = noisy
    first = out_of_fold(features, given, 4, 3, seed=0)
    other = features.copy()
    other[0] = -other[0]
    second = out_of_fold(other, given, 4, 3, seed=0)
    same = (first == second).all(1)
    assert 70 <= same.sum() <= 90 and not same[0], "the other rows of its fold, a third of all"
    assert np.allclose(first.sum(1), 1)


def test_a_label_that_one_fold_alone_has() -> None:
    features = np.random.default_rng(0).normal(size=(9, 3))
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2])
    table = out_of_fold(features, labels, 3, 2, seed=0)
    assert table[8, 2] == 0 and np.allclose(table.sum(1), 1)
    only = out_of_fold(features, np.zeros(9, np.int64), 2, 2, seed=0)
    assert only.tolist() == [[1, 0]] * 9
