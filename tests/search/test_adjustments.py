"""Every adjustment answers the errors that it is for, and no others."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import TEXTS
from tunesmith.core.registry import components
from tunesmith.evaluation.predictions import Predictions
from tunesmith.recipe.loading import load_recipe
from tunesmith.search.changes import Change, words_of
from tunesmith.search.errors_seen import Errors, LabelErrors, LengthErrors, Pair, confused_pairs, label_errors
from tunesmith.search.errors_seen import length_errors as by_length
from tunesmith.search.evidence import Evidence, Known

RECIPE: dict[str, Any] = {"data": {"train": "train.csv", "test": "test.csv"}, "method": {"name": "lora", "rank": 8}}
KNOWN = Known(["a", "b"], [10, 10], 20, "accuracy", True, True, {"a": ["red car"], "b": ["blue car"]}, 512)
PAIR = [Pair("a", "b", 4)]
BAD = Errors(20, 8, 0.6, 0.7, 3, 3, [0.4, 0.5, 0.6], PAIR, [LabelErrors("a", 10, 4, 10)], [])
BY_HEART = replace(BAD, trained_score=1.0, best_epoch=2)


def evidence(errors: Errors, changes: Mapping[str, Any] | None = None, **more: Any) -> Evidence:
    values = load_recipe(RECIPE, words_of(changes or {})).resolved()
    return Evidence(more.pop("known", KNOWN), values, errors, **more)


def proposed(name: str, found: Evidence) -> list[Mapping[str, Any]]:
    changes = components("adjustments")[name]().propose(found)
    assert all(change.what and change.why for change in changes)
    return [change.values for change in changes]


@pytest.mark.parametrize(
    ("name", "errors", "changes", "wanted"),
    [
        ("more-capacity", BAD, {}, [{"method.rank": 16}]),
        ("more-capacity", BAD, {"method.layers": "top-half"}, [{"method.rank": 16}, {"method.layers": "all-linear"}]),
        ("more-capacity", BY_HEART, {}, []),
        ("longer-training", BAD, {}, [{"training.epochs": 6}]),
        ("longer-training", BY_HEART, {}, []),
        ("learning-rate", BAD, {}, [{"training.learning_rate": 2e-3}, {"training.learning_rate": 5e-4}]),
        ("learning-rate", BY_HEART, {}, [{"training.learning_rate": 5e-4}, {"training.learning_rate": 2e-3}]),
        ("learning-rate", BAD, {"method": {"name": "none"}}, []),
        ("regularise", replace(BAD, trained_score=0.62), {}, []),
        ("compare-labels", replace(BAD, confused=[Pair("a", "b", 1)]), {}, []),
        ("label-texts", BAD, {}, [{"training.label_rows": 0.5}, {"task.head_start": "prototypes+label-text"}]),
        ("label-texts", replace(BAD, labels=[]), {}, []),
        ("rare-labels", BAD, {}, []),
        ("long-rows", replace(BAD, cut=5), {"data.max_tokens": 16}, []),
        ("other-method", BAD, {"method": {"name": "bitfit"}}, [{"method": {"name": "lora", "rank": 8}}]),
        ("label-words", BAD, {}, []),
        ("wording", BAD, {}, []),
        ("combine", BAD, {}, []),
    ],
)
def test_an_adjustment_answers_its_errors_alone(
    name: str, errors: Errors, changes: dict[str, Any], wanted: list[dict[str, Any]]
) -> None:
    assert proposed(name, evidence(errors, changes)) == wanted


def test_what_is_learned_by_heart_is_regularised() -> None:
    keys = [next(iter(values)) for values in proposed("regularise", evidence(BY_HEART))]
    assert keys == ["training.token_dropout", "training.label_smoothing", "method.rank", "training.weight_decay"]
    images = replace(KNOWN, texts={})
    assert "training.token_dropout" not in str(proposed("regularise", evidence(BY_HEART, known=images)))


def test_confused_labels_are_compared() -> None:
    losses, head = proposed("compare-labels", evidence(BAD))
    assert losses["task.losses"][1]["name"] == "supervised-contrastive"
    assert head["task.head_kind"] == "proxies-and-matching"


def test_rare_labels_with_more_than_their_share_of_errors_weigh_more() -> None:
    uneven = replace(KNOWN, labels=["a", "b", "c"], counts=[40, 30, 5], rows=75)
    errors = replace(BAD, labels=[LabelErrors("c", 3, 3, 5)], wrong=4)
    assert proposed("rare-labels", evidence(errors, known=uneven)) == [
        {"training.class_weights": "root"},
        {"training.balance": "oversample"},
    ]
    assert proposed("rare-labels", evidence(replace(errors, labels=[]), known=uneven)) == []


def test_cut_rows_that_go_wrong_more_often_are_read_further() -> None:
    lengths = [LengthErrors(8, 7, 0.1), LengthErrors(12, 7, 0.2), LengthErrors(40, 6, 0.6)]
    found = evidence(replace(BAD, cut=5, lengths=lengths), {"data.max_tokens": 16})
    assert proposed("long-rows", found) == [{"data.max_tokens": 32}]
    (change,) = components("adjustments")["long-rows"]().propose(found)
    assert change.why.endswith("the longest third is wrong in 60%, the shortest in 10%")
    lengths = [replace(one, wrong=2 * one.wrong + 1) for one in lengths]
    written = evidence(replace(BAD, cut=5, lengths=lengths, labelled=False), {"data.max_tokens": 16})
    (change,) = components("adjustments")["long-rows"]().propose(written)
    assert change.why.endswith("the longest third has a mean loss of 2.20, the shortest of 1.20")


def test_prompts_get_words_that_tell_confused_labels_apart() -> None:
    prompts = {"task": {"name": "prompt-classification"}}
    words = proposed("label-words", evidence(BAD, prompts))[0]["prompt.label_words"]
    assert words == {"a": ["a", "a (red)"], "b": ["b", "b (blue)"]}
    assert len(proposed("wording", evidence(BAD, prompts))) == 3


def test_changes_that_meet_are_not_combined() -> None:
    one, two = Change("one", {"method.rank": 4}, ""), Change("two", {"method": {"name": "lora"}}, "")
    three, four = Change("three", {"seed": 1}, ""), Change("four", {"training.epochs": 4}, "")
    assert proposed("combine", evidence(BAD, promising=[one, two, three])) == [{"method.rank": 4, "seed": 1}]
    assert len(proposed("combine", evidence(BAD, promising=[one, three, four]))) == 2
    assert proposed("combine", evidence(BAD, promising=[one, two])) == []


def test_every_start_and_adjustment_makes_recipes_that_can_be_carried_out(tmp_path: Path) -> None:
    few = replace(KNOWN, counts=[3, 3], rows=6)
    values = load_recipe(RECIPE).resolved()
    starts = {name: kind().propose(few, values) for name, kind in components("starts").items()}
    assert all(starts.values())
    errors = replace(BY_HEART, cut=3, lengths=[LengthErrors(8, 7, 0.1), LengthErrors(40, 6, 0.6)])
    changes = [change for own in starts.values() for change in own]
    for kind in components("adjustments").values():
        changes += kind().propose(evidence(errors))
        changes += kind().propose(evidence(BAD))
    for change in changes:
        load_recipe(RECIPE, words_of(change.values))


def test_errors_are_counted_by_pair_label_and_length() -> None:
    truth, said = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 2, 0])
    found = Predictions(np.eye(3)[said], truth)
    names = list(TEXTS)
    assert confused_pairs(found, names)[0] == Pair(names[0], names[1], 2)
    assert [one.wrong for one in label_errors(found, names, np.array([5, 6, 7]))] == [2, 1, 1]
    assert label_errors(found, names, np.array([5, 6, 7]))[0] == LabelErrors(names[0], 3, 2, 5)
    parts = by_length(~found.correct, np.array([9, 1, 2, 3, 4, 8]))
    assert [(one.longest, one.rows) for one in parts] == [(2, 2), (4, 2), (9, 2)]
    assert parts[0].wrong == 1.0


def test_the_rate_of_a_head_goes_where_words_are_asked_for() -> None:
    fast = ["training.head_learning_rate=0.001"]
    few, values = replace(KNOWN, counts=[3, 3], rows=6), load_recipe(RECIPE, fast).resolved()
    (change,) = components("starts")["prompt"]().propose(few, values)
    asked = load_recipe(RECIPE, [*fast, *words_of(change.values)])
    assert asked.task.name == "prompt-classification" and asked.recipe.training.head_learning_rate is None
