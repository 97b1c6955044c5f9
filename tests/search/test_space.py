"""Choices and ranges in recipes: told from values, checked before anything is loaded."""

from typing import Any

import pytest

from tunesmith.core.errors import RecipeError
from tunesmith.search.space import Choices, Range, read_space
from tunesmith.search.wanted import TuningSettings, read_wanted

RATE = {"low": 1e-4, "high": 1e-2, "log": True}


def recipe(**keys: Any) -> dict[str, Any]:
    return {"data": {"train": "x.csv"}, **keys}


def test_the_type_of_a_field_says_what_a_list_and_a_mapping_mean() -> None:
    space, _ = read_space(
        recipe(
            method={"name": "lora", "rank": [4, 8], "dropout": {"low": 0, "high": 1}},
            training={
                "learning_rate": RATE,
                "epochs": {"low": 1, "high": 4},
                "regularizers": ["l2"],
                "class_weights": {"low": 1, "high": 2},  # two labels
                "optimizer": ["adamw", "lion"],
            },
            evaluation={"metrics": ["accuracy", "macro-f1"]},
        ),
        ["training.regularizers={choices: [[], [l1, l2]]}"],
    )
    assert dict(space.nodes) == {
        "method.rank": Choices("method.rank", {"4": 4, "8": 8}),
        "method.dropout": Range("method.dropout", 0, 1, False, None, whole=False),
        "training.learning_rate": Range("training.learning_rate", 1e-4, 1e-2, True, None, whole=False),
        "training.epochs": Range("training.epochs", 1, 4, False, None, whole=True),
        "training.regularizers": Choices("training.regularizers", {"[]": [], "[l1, l2]": ["l1", "l2"]}),
        "training.optimizer": Choices("training.optimizer", {"adamw": "adamw", "lion": "lion"}),
    }


def test_fields_inside_an_option_are_open_with_it_only() -> None:
    space, _ = read_space(recipe(method=[{"name": "lora", "rank": {"low": 2, "high": 8, "log": True}}, "bitfit"]), [])
    assert list(space.points(3)) == [
        {"method": "lora", "method[lora].rank": 3},
        {"method": "lora", "method[lora].rank": 4},
        {"method": "lora", "method[lora].rank": 6},
        {"method": "bitfit"},
    ]
    assert [own for _, own in space.ends()] == [["method={name: lora, rank: 2}"], ["method=bitfit"]]


@pytest.mark.parametrize(
    ("whole", "field", "count", "expected"),
    [
        (True, {"low": 1, "high": 4}, 3, [1, 3, 4]),
        (True, {"low": 1, "high": 3}, 9, [1, 2, 3]),
        (True, {"low": 4, "high": 64, "log": True}, 3, [6, 16, 40]),
        (True, {"low": 1, "high": 3, "log": True}, 4, [1, 2, 3]),
        (True, {"low": 8, "high": 32, "step": 8}, 9, [8, 16, 24, 32]),
        (False, {"low": 0, "high": 1}, 4, [0.125, 0.375, 0.625, 0.875]),
        (False, {"low": 1e-4, "high": 1, "log": True}, 2, pytest.approx([1e-3, 1e-1])),
        (False, {"low": 0.0, "high": 0.9, "step": 0.1}, 2, pytest.approx([0.2, 0.7])),
        (False, {"low": 0.0, "high": 0.3, "step": 0.1}, 9, pytest.approx([0, 0.1, 0.2, 0.3])),
    ],
)
def test_a_grid_spreads_numbers(whole: bool, field: dict[str, Any], count: int, expected: list[float]) -> None:
    key = "epochs" if whole else "weight_decay"
    space, _ = read_space(recipe(training={key: field}), [])
    found = [point[f"training.{key}"] for point in space.points(count)]
    assert found == expected and max(found) <= field["high"]
    assert {type(number) for number in found} <= {int, float}  # YAML writes no numbers of numpy


@pytest.mark.parametrize(
    ("whole", "field", "value", "ends"),
    [
        (False, {"low": 0, "high": 1}, 0.5, (0.25, 0.75)),
        (False, {"low": 0, "high": 1}, 0.1, (0, 0.5)),
        (False, {"low": 1e-4, "high": 1, "log": True}, 1e-2, (1e-3, 1e-1)),
        (True, {"low": 1, "high": 9}, 9, (5, 9)),
        (True, {"low": 0, "high": 9}, 4, (1, 7)),
        (True, {"low": 2, "high": 32, "step": 2}, 10, (2, 18)),
    ],
)
def test_half_of_a_range_around_a_number(
    whole: bool, field: dict[str, Any], value: float, ends: tuple[float, float]
) -> None:
    key = "epochs" if whole else "weight_decay"
    space, _ = read_space(recipe(training={key: field}), [])
    node = space.narrowed({f"training.{key}": value}, 0.5).nodes[f"training.{key}"]
    assert isinstance(node, Range) and (node.low, node.high) == pytest.approx(ends)


def test_a_narrowed_space_keeps_the_chosen_option_and_what_is_open_in_it() -> None:
    options = [{"name": "lora", "rank": {"low": 2, "high": 10}}, "bitfit"]
    space, _ = read_space(recipe(method=options), [])
    lora, bitfit = (list(space.narrowed(point, 0.5).points(9)) for point in (
        {"method": "lora", "method[lora].rank": 6}, {"method": "bitfit"}))  # fmt: skip
    assert [point["method[lora].rank"] for point in lora] == [4, 5, 6, 7, 8] and bitfit == [{"method": "bitfit"}]


def test_a_metric_decides_where_the_whole_of_training_is_open() -> None:
    options = [{"epochs": 1}, {"epochs": {"low": 2, "high": 4}}]
    found = read_wanted(recipe(training=options), [], TuningSettings(metric="macro-f1", strategy="random"))
    assert found.metric == "macro-f1" and {one.recipe.training.best for one in found.able} == {"macro-f1"}
    assert [one.recipe.training.epochs for one in found.able] == [1, 2]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=1", "nothing to search"),
        ("method.rank=[]", "method.rank: an empty list of choices"),
        ("method.rank=[4, 4]", "method.rank: the choice 4 stands there twice"),
        (
            "training.learning_rate={low: 1, high: 0.1}",
            "training.learning_rate: the range is upside down: low 1 is not",
        ),
        (
            "method.rank={low: 4, high: 4}",
            "method.rank: low and high are both 4, which leaves nothing to search. Write",
        ),
        ("training.learning_rate={low: 1}", "high is None"),
        ("training.learning_rate={low: 0.1, high: .inf}", "high is inf"),
        ("training.learning_rate={low: .nan, high: 1}", "low is nan"),
        ("training.epochs={low: 1, high: .inf, step: 1}", "high is inf"),
        ("training.learning_rate={low: 0.001, high: 0.01, step: 0.004}", "do not meet high 0.01. Write high: 0.009."),
        ("training.learning_rate={low: 0, high: 1, log: true}", "needs low above 0"),
        ("training.learning_rate={low: 0.1, high: 1, logg: true}", "unknown key of a range 'logg'; did you mean 'log'"),
        ("training.epochs={low: 1, high: 2.5}", "training.epochs: whole numbers are wanted"),
        ("training.epochs={low: 1, high: 4, step: 5}", "training.epochs: step 5 does not fit"),
        ("data.validation=[0.1, 0.2]", "data.validation: it has to be the same in all trials"),
        ("output=[a, b]", "output: it has to be the same in all trials"),
    ],
)
def test_mistakes_in_a_space_are_named(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message.replace("[", r"\[")):
        read_space(recipe(), [override])
