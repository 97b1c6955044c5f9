"""Several models on the same rows: tests of pairs, groups, and intervals that hold near 0 and 1."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from tunesmith.evaluation.changes import changes
from tunesmith.evaluation.comparison import Comparison, Entry, differing, flattened, short_names
from tunesmith.evaluation.comparison_page import sentences
from tunesmith.evaluation.importance import axis, importances
from tunesmith.evaluation.pairs import Pair, compare_pairs, enough, letters, mcnemar
from tunesmith.evaluation.predictions import Predictions
from tunesmith.evaluation.statistics import Bootstrap, Estimate, metrics_by_name, paired_shares, wilson
from tunesmith.evaluation.written import Written

(ACCURACY,) = metrics_by_name(["accuracy"])


def right_on(marks: np.ndarray) -> Predictions:
    return Predictions(np.where(marks[:, None], [0.8, 0.2], [0.3, 0.7]), np.zeros(len(marks), dtype=np.int64))


def test_letters_are_shared_exactly_by_those_that_are_not_apart() -> None:
    draw = np.random.default_rng(0)
    for count in (2, 5, 9):
        pairs = list(combinations(range(count), 2))
        for _ in range(20):
            apart = [pair for pair in pairs if draw.random() < 0.5]
            found = letters(count, apart)
            assert all((not set(found[one]) & set(found[two])) == ((one, two) in apart) for one, two in pairs)
    assert letters(3, []) == ["a", "a", "a"]


def test_who_is_tied_with_the_best_is_said_of_more_runs_than_letters() -> None:
    """28 runs that are all told apart but the last two: their letters are a to z, a' and a'."""
    places = list(combinations(range(28), 2))
    apart = [pair for pair in places if pair != (26, 27)]
    scores = [Estimate(0.9 - 0.01 * at, 0.899 - 0.01 * at, 0.901 - 0.01 * at) for at in range(28)]
    entries = [
        Entry(f"run{at}", "", {"accuracy": score}, {}, group, {"trainable_parameters": 1}, [], {})
        for at, (score, group) in enumerate(zip(scores, letters(28, apart), strict=True))
    ]
    pairs = [Pair(*pair, scores[0], 0.0, 0.0, 1, 0, float(pair not in apart)) for pair in places]
    found = Comparison(entries, "accuracy", True, "test", ["line 2"], [], pairs, [], [], Bootstrap())
    assert entries[26].group == entries[27].group == "a'"
    assert "told apart from every other run" in " ".join(sentences(found))
    again = replace(found, pairs=[replace(pair, p_value=float(pair.second == 2)) for pair in pairs])
    assert "Not told apart from it: run2." in " ".join(sentences(again))


def test_mcnemar_by_hand() -> None:
    assert mcnemar(0, 0) == 1 and mcnemar(5, 5) == 1
    assert mcnemar(6, 0) == mcnemar(0, 6) == pytest.approx(2 / 2**6)


def test_models_are_told_apart_where_they_are() -> None:
    draw = np.random.default_rng(0)
    base = draw.random(400) < 0.7
    models = [base | (draw.random(400) < 0.5), base, base ^ (draw.random(400) < 0.01)]
    found = compare_pairs([right_on(one) for one in models], ACCURACY, enough(Bootstrap(100), 3))
    assert found.groups[0] == "a" and found.groups[1] == found.groups[2] == "b"
    first = found.pairs[0]
    assert first.only_second == 0 and first.only_first == (models[0] & ~base).sum() and first.gain.low > 0
    assert first.p_value < 0.001 and found.pairs[2].p_value > 0.05
    (f1,) = metrics_by_name(["macro-f1"])
    other = compare_pairs([right_on(one) for one in models], f1, enough(Bootstrap(100), 3))
    assert other.pairs[0].mcnemar_p is None and other.pairs[0].p_value < 0.05 and other.groups[0] == "a"
    assert enough(Bootstrap(100), 3).resamples == 2000 and enough(Bootstrap(), 10).resamples == 4500


def test_intervals_of_shares_cover_near_one() -> None:
    """2,000 simulated splits of 40 rows, true accuracy 97 %: the percentile interval would cover 70 % of them."""
    hits = np.random.default_rng(0).binomial(40, 0.97, 2000)
    covered = [low <= 0.97 <= high for low, high in (wilson(share, 40, 0.95) for share in hits / 40)]
    assert np.mean(covered) > 0.92
    for rows in range(1, 200):
        assert wilson(1.0, rows, 0.95)[1] == 1 and wilson(0.0, rows, 0.95)[0] == 0
    draw, covered = np.random.default_rng(0), []
    for _ in range(500):
        kinds = draw.choice(3, 40, p=[0.04, 0.02, 0.94])
        low, high = paired_shares(kinds != 1, kinds != 0, 0.95)
        covered.append(low <= 0.02 <= high)
    assert np.mean(covered) > 0.93


def test_what_changed_row_by_row() -> None:
    references = np.array([0, 1, 1, 0])
    one = Predictions(np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.4, 0.6]]), references)
    two = Predictions(np.array([[0.4, 0.6], [0.7, 0.3], [0.1, 0.9], [0.4, 0.6]]), references)
    found = changes((0, 1), (one, two), ACCURACY, ["no", "yes"])
    assert [answer.row for answer in found.gained] == [0, 1] and [answer.row for answer in found.lost] == [2]
    assert found.gained[0].right == "no" and found.gained[0].second == "yes (60 %)"
    assert sorted(found.confusions) == [("no", "yes", 1, 2), ("yes", "no", 1, 1)]
    texts = [Written(np.ones(3), np.ones(3, np.int64), np.ones(3, np.int64), np.array([0, 2]), answers,
                     [["red fox"], ["blue"]]) for answers in (["red fox", "green"], ["red", "blue"])]  # fmt: skip
    written = changes((0, 1), (texts[0], texts[1]), metrics_by_name(["token-f1"])[0], [])
    assert [answer.row for answer in written.gained] == [0] and [answer.row for answer in written.lost] == [2]
    assert written.lost[0].right == "blue" and written.lost[0].first.startswith("green")


def test_settings_and_names() -> None:
    lora, bitfit = ({"method": {"name": "lora", "rank": 8}, "seed": 0}, {"method": {"name": "bitfit"}, "seed": 1})
    assert differing([flattened(lora), flattened(bitfit)]) == ["method.name", "seed"]
    assert short_names(["/a/x/run", "/b/x/run"]) == ["a/x/run", "b/x/run"]
    places, ticks = axis([1e-4, None, 1e-3, 1e-3])
    assert places[0] == 0 and np.isnan(places[1]) and places[2:] == [1, 1] and ticks == [(0, "0.0001"), (1, "0.001")]
    assert axis([["a"], True])[0] == [1, 0]


def test_what_mattered_is_told_of_enough_runs() -> None:
    draw = np.random.default_rng(0)
    points = [(step, name) for step in range(1, 6) for name in ("lora", None)]
    settings = [
        {"rate": 10.0**-step, "method": name, "seed": int(seed)}
        for seed, (step, name) in zip(draw.permutation(10), points, strict=True)
    ]
    values = [0.1 * one["rate"] ** 0.25 + draw.normal(0, 1e-3) for one in settings]
    found = importances(settings, values)
    assert list(found) == ["rate", "method", "seed"] and sum(found.values()) == pytest.approx(1)
    assert found["rate"] > 0.5 > found["method"]
    by_name = importances(settings, [1.0 if one["method"] else 0.0 for one in settings])
    assert by_name["method"] > 0.9 and importances(settings, values) == found, "the same each time"
    assert importances(settings[:7], values[:7]) == {} == importances(settings, [0.5] * 10)
    assert importances(settings, [*values[:7], *[float("nan")] * 3]) == {}
