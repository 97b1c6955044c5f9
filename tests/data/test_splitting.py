import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.splitting import stratified_share


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
