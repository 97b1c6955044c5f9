"""Changes that are behind leave a round of the closed loop, whatever their order; the others train on as alone."""

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tests.conftest import TEXTS, write_csv
from tunesmith.search.attempts import Attempt
from tunesmith.search.leaving import Leaving


def heard(scores: dict[int, list[float]], order: list[int], **settings: Any) -> tuple[dict[int, int], Leaving]:
    """Tell a round's scores epoch by epoch; return the last epoch of each change."""
    leaving = Leaving(
        **{
            "share": 0.5,
            "epochs": {number: len(own) for number, own in scores.items()},
            "higher_is_better": True,
            **settings,
        }
    )
    last = dict.fromkeys(scores, 0)
    for epoch in range(1, max(map(len, scores.values())) + 1):
        for number in order:
            if number not in leaving.left and epoch <= len(scores[number]):
                last[number] = epoch
                leaving(number, epoch, scores[number][epoch - 1])
    return last, leaving


ROUND = {1: [0.1, 0.5, 0.6, 0.9], 2: [0.9, 0.7, 0.7, 0.7], 3: [0.0, 0.6, 0.6, 0.6], 4: [0.0, 0.8, 0.8, 0.8]}


def test_those_behind_the_median_leave_in_any_order() -> None:
    for order in permutations(ROUND):
        last, leaving = heard(ROUND, list(order))
        assert last == {1: 3, 2: 4, 3: 3, 4: 4}
    assert leaving.left[1] == "left after epoch 3 of 4: 0.5000 in epoch 2, the median of the round there 0.6500"


def test_a_change_that_begins_anew_is_judged_anew() -> None:
    _, leaving = heard(ROUND, list(ROUND))
    assert not leaving(1, 1, 0.1) and not leaving(1, 2, 0.9) and not leaving(1, 3, 0.6)


def test_of_losses_the_higher_ones_leave() -> None:
    assert heard(ROUND, list(ROUND), higher_is_better=False)[0] == {1: 4, 2: 3, 3: 4, 4: 3}


def test_nothing_leaves_at_share_one_or_in_a_round_of_few_or_where_all_are_alike() -> None:
    assert not heard(ROUND, list(ROUND), share=1.0)[1].left
    assert not heard({number: ROUND[number] for number in (1, 2, 3)}, [1, 2, 3])[1].left
    assert not heard(dict.fromkeys(range(6), [0.5] * 4), list(range(6)))[1].left


def test_changes_of_other_lengths_are_judged_at_the_same_share() -> None:
    longer = {**ROUND, 5: [0.9] * 3 + [0.1] * 5}
    last, _ = heard(longer, list(longer))
    assert last[5] == 5


def test_what_leaves_is_told_and_not_tested(tiny_folder: Path, tmp_path: Path) -> None:
    train = [(f"{text} {extra}", label) for label, texts in TEXTS.items() for text in texts for extra in "abcd"]
    write_csv(tmp_path / "train.csv", train)
    recipe = {
        "model": str(tiny_folder), "data": {"train": str(tmp_path / "train.csv"), "validation": 0.25},
        "method": {"name": "lora", "rank": 4}, "evaluation": {"resamples": 100, "baselines": False},
        "training": {"epochs": 4, "batch_size": 8, "learning_rate": 1e-3}, "output": str(tmp_path / "loop"),
    }  # fmt: skip
    result = tunesmith.loop(recipe, trials=8, width=7, members=1)
    lines = (tmp_path / "loop" / "rounds.jsonl").read_text(encoding="utf-8").splitlines()
    attempts = [Attempt.of(one) for one in json.loads(lines[1])["attempts"]]
    gone = [one for one in attempts if one.outcome.state == "stopped"]
    assert len(attempts) == 7 and 0 < len(gone) <= 3 and result["attempts"]["stopped"] == len(gone)
    for one in attempts:
        left = one in gone
        assert (one.test is None) == left
        assert one.outcome.reason.startswith(f"left after epoch {one.outcome.epochs} of ") == left
    assert f"; {len(gone)} left early" in result["decisions"][1]
    assert gone[0].outcome.reason in (tmp_path / "loop" / "loop.md").read_text(encoding="utf-8")
    whole = tunesmith.loop({**recipe, "output": str(tmp_path / "whole")}, trials=8, width=7, members=1, leave=1.0)
    assert whole["attempts"]["stopped"] == 0
    if whole["best"] not in {one.number for one in gone}:
        assert whole["chosen_by"] == pytest.approx(result["chosen_by"])
