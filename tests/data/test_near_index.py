"""Near copies among many rows: likely pairs are estimated, exact comparison decides, limits are told."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from tunesmith.data import near_index
from tunesmith.data.near import bands_of, normal, sketches
from tunesmith.data.near_index import NearIndex, _agreeing, _least, _places

SPOKEN = """card transfer top up payment account cash machine exchange rate pending refund identity virtual country
    limit statement declined balance salary currency weekend cheque deposit charged twice"""


def phrases(count: int, seed: int = 0) -> list[str]:
    """Texts of a few hundred phrases of three words: any two share some."""
    draw = random.Random(seed)
    some = [" ".join(draw.choices(SPOKEN.split(), k=3)) for _ in range(300)]
    return list(dict.fromkeys(" ".join(draw.choices(some, k=5)) for _ in range(count)))


def jaccard(left: str, right: str) -> float:
    one, other = ({text[at : at + 3] for at in range(len(text) - 2)} for text in map(normal, (left, right)))
    return len(one & other) / len(one | other)


def found_in(texts: list[str], threshold: float) -> dict[str, Any]:
    index = NearIndex(threshold)
    for start in range(0, len(texts), 500):
        index.add(texts[start : start + 500])
    return index.near(np.arange(len(texts)))


def planted(count: int) -> tuple[list[str], list[tuple[int, int]]]:
    """Texts with near copies far behind them; pairs of row numbers."""
    texts = phrases(count)
    pairs = [(row, len(texts) + place) for place, row in enumerate(range(0, len(texts), 20))]
    return texts + [texts[row].rpartition(" ")[0] for row, _ in pairs], pairs


@pytest.mark.parametrize("threshold", [0.75, 0.85, 0.9])
def test_planted_near_copies_far_apart_are_found_among_rows_that_share_phrases(threshold: float) -> None:
    texts, pairs = planted(4000)
    near = {row for pair in pairs if jaccard(texts[pair[0]], texts[pair[1]]) >= threshold for row in pair}
    found = found_in(texts, threshold)
    assert len(near) > 100
    assert found["complete"] and found["rows"] >= 0.98 * len(near)
    assert all(jaccard(texts[one], texts[other]) >= threshold for one, other in found["pairs"])


def test_rows_that_are_found_are_near_copies() -> None:
    texts = phrases(600)
    texts += [text.rpartition(" ")[0] for text in texts[::10]]
    pairs = [(row, at) for row in range(len(texts)) for at in range(row) if jaccard(texts[row], texts[at]) >= 0.8]
    by_hand = {row for pair in pairs for row in pair}
    assert 0.98 * len(by_hand) <= found_in(texts, 0.8)["rows"] <= len(by_hand)


@pytest.mark.parametrize("limit", ["_MOST", "_ESTIMATED", "_HELD"])
def test_what_a_limit_cuts_off_is_told(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, _ = planted(3000)
    whole = found_in(texts, 0.8)
    monkeypatch.setattr(near_index, limit, 40)
    monkeypatch.setattr(near_index, "_AT_ONCE", 4)
    cut = found_in(texts, 0.8)
    assert whole["complete"] and not cut["complete"]
    assert cut["rows"] < whole["rows"]


def test_a_limit_is_spread_over_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of 3,000 rows are near copies of each other: 4.5 million pairs, of which one for each row is enough."""
    draw, start = (
        random.Random(0),
        "your order has been shipped today and will arrive on monday morning, thank you, number",
    )
    texts = [f"{start} {number}" for number in draw.sample(range(1000, 10_000), 3000)]
    monkeypatch.setattr(near_index, "_HELD", 10 * len(texts))
    monkeypatch.setattr(near_index, "_MOST", len(texts))
    monkeypatch.setattr(near_index, "_AT_ONCE", 500)
    monkeypatch.setattr(near_index, "_PAIRS", 200)
    found = found_in(texts, 0.85)
    assert found["rows"] == len(texts) and found["complete"]


def test_bytes_agree_as_often_as_trigrams_do() -> None:
    texts, pairs = planted(4000)
    rows, like = len(texts), list[float]()
    parts = [marks for _, marks in sketches([normal(text) for text in texts], 0.9, 0, 40)]
    marks = np.zeros((rows, 32), np.uint8)
    marks[:, :30] = np.concatenate(parts, axis=1)
    one, other = (np.array(side) for side in zip(*pairs, strict=True))
    packed = marks.view(np.uint64)
    counts = _agreeing(packed[one], packed[other])
    assert counts.tolist() == (marks[one] == marks[other]).sum(axis=1).tolist()
    like = [jaccard(texts[left], texts[right]) for left, right in pairs]
    assert abs((counts - 2).mean() / 30 - np.mean(like)) < 0.02


@pytest.mark.parametrize("threshold", [0.5, 0.85, 0.9, 0.95])
def test_a_pair_at_the_threshold_is_seldom_estimated_too_low(threshold: float) -> None:
    orders = int(np.prod(bands_of(threshold, 40)))
    least = _least(threshold, orders)
    assert binom.cdf(least - 1, orders, threshold) < 0.002 <= binom.cdf(least, orders, threshold)


def test_equal_sets_agree_in_every_order() -> None:
    assert _least(1.0, 1) == 1
    assert found_in(["the cat sat on the mat", "a dog", "cat sat on the mat the cat s"], 1.0)["rows"] == 0


def test_pairs_of_a_text_are_numbered_by_how_likely_they_are() -> None:
    texts, unlike = np.array([3, 1, 3, 3, 1]), np.array([9, 2, 4, 7, 0], np.uint8)
    assert _places(texts, unlike).tolist() == [2, 1, 0, 1, 0]
    assert _places(texts[:0], unlike[:0]).tolist() == []


def test_no_rows_and_one_row() -> None:
    index = NearIndex(0.9)
    index.add(["one text"])
    assert index.near(np.arange(1)) == {"rows": 0, "complete": True, "pairs": [], "orders": 30}
