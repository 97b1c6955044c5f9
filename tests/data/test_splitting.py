import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.splitting import grouped_share, stratified_folds, stratified_order, stratified_share


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.floats(0.05, 0.5), st.integers(0, 5))
def test_shares_are_kept_and_no_class_loses_all(sizes: list[int], share: float, seed: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    kept, held = stratified_share(labels, share, seed)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert set(labels[kept]) == set(range(len(sizes)))
    for code, size in enumerate(sizes):
        assert (labels[held] == code).sum() <= share * size + 1.5
    again = stratified_share(labels, share, seed)
    assert np.array_equal(again[1], held)


def test_total_is_the_share() -> None:
    labels = np.repeat(np.arange(50), 10)
    assert len(stratified_share(labels, 0.1, 0)[1]) == 50
    assert len(stratified_share(np.repeat(np.arange(10), 5), 0.1, 0)[1]) == 5


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), min_size=1, max_size=80), st.floats(0.05, 0.6))
def test_groups_stay_whole_and_no_class_loses_all(rows: list[tuple[int, int]], share: float) -> None:
    labels, groups = (np.array(column) for column in zip(*rows, strict=True))
    kept, held = grouped_share(labels, groups, share, 0)
    assert sorted([*kept, *held]) == list(range(len(rows)))
    assert not set(groups[kept]) & set(groups[held]) and set(labels[kept]) == set(labels)
    assert len(held) <= share * len(rows) + 1
    assert np.array_equal(grouped_share(labels, groups, share, 0)[1], held)


def test_groups_of_one_make_the_share_exact() -> None:
    groups = np.concatenate([np.repeat(np.arange(20), 10), np.arange(20, 820)])
    kept, held = grouped_share(np.zeros(1000), groups, 0.1, 7)
    assert len(held) == 100 and len(kept) == 900
    assert not np.array_equal(grouped_share(np.zeros(1000), groups, 0.1, 8)[1], held)


@pytest.mark.parametrize("grouped", [False, True])
def test_folds_part_every_class_alike_and_keep_groups_whole(grouped: bool) -> None:
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    groups = np.arange(100) // 2 if grouped else None
    folds = stratified_folds(labels, 5, 0, groups)
    assert [np.bincount(folds[labels == code], minlength=5).tolist() for code in range(3)] == [
        [10] * 5,
        [6] * 5,
        [4] * 5,
    ]
    assert groups is None or all(len(set(folds[groups == group])) == 1 for group in range(50))
    assert (folds == stratified_folds(labels, 5, 0, groups)).all()
    assert (folds != stratified_folds(labels, 5, 1, groups)).any()


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(0, 5))
def test_every_beginning_of_an_order_is_stratified(sizes: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    order = stratified_order(labels, seed)
    assert sorted(order) == list(range(len(labels)))
    assert len(set(labels[order[: len(sizes)]])) == len(sizes)
    for beginning in range(len(sizes), len(labels) + 1, 7):
        counts = np.bincount(labels[order[:beginning]], minlength=len(sizes))
        wanted = beginning * np.array(sizes) / len(labels)
        assert (counts <= np.ceil(wanted) + 1).all() and (counts >= 1).all()
    assert np.array_equal(order, stratified_order(labels, seed))
