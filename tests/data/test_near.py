"""Near copies are found as a comparison of all pairs would find them."""

import random
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import real
from tunesmith.core.errors import DataError
from tunesmith.data.near import bands_of, near_groups, text_groups, together, without_shared_start, worded

SENTENCES = [
    "The cat sat on the mat.",
    "我昨天在公园里看见了一只小狗。",
    "Where is my parcel today?",
    "他说他明天不会来参加会议。",
]


def trigrams(text: str) -> set[str]:
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return {text[at : at + 3] for at in range(len(text) - 2)} if len(text) > 2 else {text}


def slowly(sides: list[list[str]], threshold: float) -> list[int]:
    """Group rows by comparing every pair."""
    groups = list(range(len(sides[0])))
    for texts in sides:
        sets = [trigrams(text) for text in texts]
        for one in range(len(texts)):
            for other in range(one):
                if groups[one] == groups[other]:
                    continue
                shared = len(sets[one] & sets[other])
                if shared / (len(sets[one]) + len(sets[other]) - shared) >= threshold:
                    old, new = groups[one], groups[other]
                    groups = [new if group == old else group for group in groups]
    numbers: dict[int, int] = {}
    return [numbers.setdefault(group, len(numbers)) for group in groups]


def noisy(count: int, seed: int) -> list[str]:
    """Sentences with a few characters changed, cut off or added."""
    draw, found = random.Random(seed), []
    for _ in range(count):
        letters = list(draw.choice(SENTENCES) * draw.randint(1, 2))
        for _ in range(draw.randint(0, 12)):
            place = draw.randrange(len(letters))
            letters[place] = draw.choice(["", "x", "狗", "Q", letters[place].upper(), "  "])
        found.append("".join(letters)[: draw.choice([1, 2, 3, 9, 99])])
    return found


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.9, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_groups_are_those_of_all_pairs(threshold: float, seed: int) -> None:
    texts = noisy(300, seed)
    texts += [f"{seed} {number} {random.Random(number).random()} filler {number * 7919}" for number in range(700)]
    expected = slowly([texts], threshold)
    if max(np.bincount(expected)) > len(texts) // 2:
        with pytest.raises(DataError, match="are near copies of each other"):
            near_groups([texts], threshold)
        return
    found = near_groups([texts], threshold)
    assert found.tolist() == expected and together(found) > 100
    assert np.array_equal(found, near_groups([texts], threshold))


def test_both_sides_count() -> None:
    questions = ["where is my parcel", "where is my parcel?", "how are you", "what time is it", "stop that noise"]
    answers = ["on its way to you", "no idea at all", "no idea at all", "half past nine", "certainly not"]
    assert near_groups([questions], 0.7).tolist() == [0, 0, 1, 2, 3]
    assert near_groups([answers], 0.7).tolist() == [0, 1, 1, 2, 3]
    with pytest.raises(DataError, match=r"near_copies=0\.7: 3 of 5 rows .*directly or through others.*Raise"):
        near_groups([questions, answers], 0.7)
    more = ["something quite different", "and one further row"]
    found = near_groups([questions + more, answers + more], 0.7)
    assert found.tolist() == [0, 0, 0, 1, 2, 3, 4]
    assert "7 rows make 5 groups; 3 rows are in groups of several" in worded(found, 0.7)


def test_short_texts_are_near_when_equal() -> None:
    texts = ["ab", "AB ", "ba", "a", "", " ", "abc", "好", "好的", "ａｂ"]
    assert near_groups([texts], 0.01).tolist() == [0, 0, 1, 2, 3, 3, 4, 5, 6, 0]


@given(st.floats(0.05, 0.999))
def test_a_pair_at_the_threshold_is_found(threshold: float) -> None:
    bands, rows = bands_of(threshold)
    assert (1 - threshold**rows) ** bands <= 0.01
    assert bands * rows <= 300 or rows == 1


def test_the_chance_to_agree_is_the_similarity() -> None:
    """The banding's probability, measured: pairs of similarity 1/3 among 4,000, at a threshold of 0.5."""
    from tunesmith.data import near

    texts = [
        f"{chr(0x4E00 + 5 * n)}{chr(0x4E01 + 5 * n)}{chr(0x4E02 + 5 * n)}{chr(0x4E03 + 5 * n)}" for n in range(2000)
    ]
    pairs = [text for one in texts for text in (one, one[1:] + chr(ord(one[0]) + 4))]
    grams, starts = near._trigrams(pairs)
    hashes = (near._mixed(grams) >> np.uint64(32)).astype(np.uint32)
    found = np.zeros(2000, bool)
    for keys in near._band_keys(hashes, starts, 0.5, seed=3):
        found |= keys[::2] == keys[1::2]
    bands, rows = bands_of(0.5)
    assert abs(found.mean() - (1 - (1 - (1 / 3) ** rows) ** bands)) < 0.04


def test_what_all_begin_with_is_left_out() -> None:
    assert without_shared_start(["Translate:\nyes", "Translate:\nno", "Translate:\nnever"]) == ["yes", "no", "never"]
    assert without_shared_start(["ab", "a"]) == ["b", ""] and without_shared_start(["same", "same"]) == ["", ""]


def test_real_pairs() -> None:
    path = real("TUNESMITH_DATA") / "tatoeba_cmn_eng" / "cmn.txt"
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    rows = rows[3000:3400] + rows[-200:]
    sides = [[row[0] for row in rows], [row[1] for row in rows]]
    for threshold in (0.5, 0.7):
        found = near_groups(sides, threshold)
        assert found.tolist() == slowly(sides, threshold) and together(found) > 20


def test_no_texts_have_no_groups() -> None:
    assert text_groups([], 0.9).tolist() == []
