"""Augmentations change texts within their bounds, and depend on draw and row alone."""

from collections import Counter

import numpy as np
import pytest

from tunesmith.core.registry import components
from tunesmith.data.augmentations.base import Augmentation
from tunesmith.data.augmented import AugmentedRows
from tunesmith.data.tokens import tokenize

TEXT = "please tell me when my new card will arrive at home"


class Letters:
    """A tokenizer with a token per character."""

    def __call__(self, texts: list[str], **settings: object) -> dict[str, list[list[int]]]:
        most = settings.get("max_length")
        return {"input_ids": [[ord(sign) for sign in text][: int(most) if most else None] for text in texts]}


def drawn(step: Augmentation, text: str = TEXT, count: int = 400) -> list[list[str]]:
    return [step.text(text, np.random.default_rng(seed)).split() for seed in range(count)]


@pytest.mark.parametrize(
    "name", [name for name, kind in components("augmentations").items() if kind.of == "text" and not kind.ahead]
)
def test_a_form_repeats_and_is_another_one_at_the_rate_wanted(name: str) -> None:
    step = components("augmentations")[name](rate=0.2)
    assert drawn(step) == drawn(step)
    same = sum(" ".join(words) == TEXT for words in drawn(step)) / 400
    assert 0.8**11 / 2 < same < 0.35, "about 0.8 to the power of 11 words, more where a change may change nothing"
    for text in ("", "  ", "x"):
        assert step.text(text, np.random.default_rng(0)).strip() == text.strip() or name == "insert"


def test_delete_leaves_words_of_the_text_in_order() -> None:
    words = TEXT.split()
    found = drawn(components("augmentations")["delete"](rate=0.2))
    for some in found:
        rest = iter(words)
        assert some and all(word in rest for word in some)
    assert np.mean([len(some) for some in found]) == pytest.approx(0.8 * 11, rel=0.05)
    assert all(len(some) == 1 for some in drawn(components("augmentations")["delete"](rate=1)))


def test_swap_keeps_the_words_and_insert_adds_own_ones() -> None:
    words = Counter(TEXT.split())
    assert all(Counter(some) == words for some in drawn(components("augmentations")["swap"](rate=0.3)))
    longer = drawn(components("augmentations")["insert"](rate=0.2))
    assert all(not words - Counter(some) and set(some) == set(words) for some in longer)
    assert np.mean([len(some) for some in longer]) == pytest.approx(1.2 * 11, rel=0.05)


def test_typo_changes_one_character_and_no_placeholder() -> None:
    step = components("augmentations")["typo"](rate=1)
    for some in drawn(step, "write a letter to <MAIL_1>"):
        for before, after in zip(["write", "a", "letter", "to", "<MAIL_1>"], some, strict=True):
            assert abs(len(after) - len(before)) <= 1 and set(after) <= set(before)
        assert some[1] == "a" and some[4] == "<MAIL_1>"


def test_rows_depend_on_the_draw_and_their_number_alone() -> None:
    texts = [f"{TEXT} number {number}" for number in range(6)]
    plain = tokenize(Letters(), texts, 100)
    steps = [components("augmentations")[name](rate=0.3) for name in ("swap", "typo")]
    rows = AugmentedRows(plain, Letters(), lambda row, changed: changed(texts[row]), steps, 100)
    assert rows.varies and not plain.varies
    assert all((rows[row] == plain[row]).all() and (rows.seen(row).ids == plain[row]).all() for row in range(6))
    first = [rows.seen(row, 7).ids.tolist() for row in range(6)]
    assert first == [rows.seen(row, 7).ids.tolist() for row in reversed(range(6))][::-1], "in any order"
    assert first != [rows.seen(row, 8).ids.tolist() for row in range(6)], "another one in another epoch"
    assert len({tuple(np.array(row)[:50]) for row in first}) == 6, "every row draws for itself"
    assert rows.take(np.array([4, 1])).seen(0, 7).ids.tolist() == first[4], "also where other rows were dropped"
    short = AugmentedRows(tokenize(Letters(), texts, 9), Letters(), lambda row, changed: changed(texts[row]), steps, 9)
    assert all(len(short.seen(row, 3).ids) <= 9 for row in range(6))
