import numpy as np
import pytest
import torch

from tests.training.test_many import backbone, trial
from tunesmith.core.errors import DataError
from tunesmith.methods.lora import Lora
from tunesmith.training.sampling import Steps, check_rows_per_label, together_by_label


def test_rows_of_a_label_stand_together() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(12), 8))
    orders = [together_by_label(labels, 4, torch.Generator().manual_seed(seed)).tolist() for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2] and sorted(orders[0]) == list(range(96))
    for start in range(0, 96, 16):  # groups are whole here, so every batch holds its labels four times or more
        _, counts = np.unique(labels[orders[0][start : start + 16]], return_counts=True)
        assert (counts % 4 == 0).all()


def test_left_over_rows_join_a_group() -> None:
    labels = np.array([0] * 5 + [1] * 3 + [2])
    order = together_by_label(labels, 2, torch.Generator().manual_seed(0))
    assert sorted(order) == list(range(9))
    runs = [len(run) for run in "".join(str(labels[row]) for row in order).replace("0", " ").split()]
    assert max(runs) >= 3  # the three rows of label 1 are one group


def test_an_order_is_cut_into_steps() -> None:
    steps = Steps(np.array([4, 0, 3, 1, 2]), 2)
    assert list(steps) == [[4, 0], [3, 1], [2]] and len(steps) == 3 and steps[-1] == [2]
    assert list(steps.first(2)) == [[4, 0], [3, 1]] and list(steps.first(9)) == list(steps)
    assert all(type(row) is int for row in steps[0])


@pytest.mark.parametrize("most", [3, 8, 9, 16])
def test_rows_may_be_taken_beyond_the_last_step(most: int) -> None:
    """As a range test, or a measurement of a step's time, does; 64 rows make 8 steps."""
    taking = trial(backbone(0.0), Lora(rank=2), "a", 0, max_steps=most, epochs=2)
    taken = [taking.take() for _ in range(40)]
    assert all(len(rows) == 8 for rows in taken)
    whole = [row for rows in taken[most : most + 8] for row in rows]
    assert sorted(whole) == list(range(64))


def test_what_cannot_be_filled_is_refused() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    with pytest.raises(DataError, match="the label 'b' has 2 training rows"):
        check_rows_per_label(labels, ["a", "b"], 3, 32)
    with pytest.raises(DataError, match="At most 1 are allowed"):
        check_rows_per_label(labels, ["a", "b"], 2, 3)
