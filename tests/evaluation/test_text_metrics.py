"""Metrics of language models against values worked out by hand and against sacrebleu."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF

from tunesmith.core.registry import find
from tunesmith.evaluation.metrics.base import worded, worded_gain
from tunesmith.evaluation.pairs import compare_pairs
from tunesmith.evaluation.statistics import Bootstrap, estimate, metrics_by_name, paired_difference
from tunesmith.evaluation.words import unspaced, words
from tunesmith.evaluation.written import Written

ANSWERS = ["the cat sat on the mat", "a dog", "it rains today in paris", "nothing at all"]
RIGHT = [["the cat sat on a mat"], ["The dog!", "two dogs"], ["it rains in paris today"], ["all is nothing"]]


def written(answers: Sequence[str] = ANSWERS, right: Sequence[list[str]] = RIGHT) -> Written:
    rows = len(answers)
    tokens = np.arange(2, 2 + rows)
    return Written(1.5 * tokens, tokens, 5 * tokens, np.arange(rows), list(answers), [list(one) for one in right])


def score(name: str, found: Written) -> float:
    return float(find("metrics", name)().compute(found.sample()))


def test_likelihoods() -> None:
    found = written()
    assert score("nats-per-token", found) == pytest.approx(1.5)
    assert score("perplexity", found) == pytest.approx(math.exp(1.5))
    assert score("bits-per-character", found) == pytest.approx(1.5 / math.log(2) / 5)


def test_overlaps_by_hand() -> None:
    found = written()
    assert score("exact-match", found) == pytest.approx(2 / 4)  # articles, case and punctuation aside
    # common words without articles: 4 of 4 and 4; 1 of 1 and 1; 5 of 5; 2 of 3 and 3
    assert score("token-f1", found) == pytest.approx((1 + 1 + 1 + 2 / 3) / 4)
    assert score("rouge-1", found) == pytest.approx((2 * 5 / 12 + 2 * 1 / 4 + 1 + 2 * 2 / 6) / 4)
    assert score("rouge-2", found) == pytest.approx((2 * 3 / 10 + 0 + 2 * 2 / 8 + 0) / 4)
    assert score("rouge-l", found) == pytest.approx((2 * 5 / 12 + 2 * 1 / 4 + 2 * 4 / 10 + 2 * 1 / 6) / 4)


def test_an_answer_of_articles_or_signs_alone_is_compared_as_it_is() -> None:
    """As in multiple choice, where A is no article: nothing, or another sign, is no right answer."""
    found = written(["", "A.", "<", "the"], [["A"], ["A"], [">"], ["a"]])
    assert score("exact-match", found) == score("token-f1", found) == pytest.approx(1 / 4)


def test_vowel_signs_and_accents_belong_to_their_words_and_wide_punctuation_does_not() -> None:
    found = written(["की", "re\u0301sume\u0301", "你好！", "で・す ❤️"], [["का"], ["résumé"], ["你好"], ["です"]])
    assert score("exact-match", found) == pytest.approx(3 / 4)
    assert words("हिन्दी İz ﬁne") == ["हिन्दी", "i\u0307z", "ﬁne"]


def test_words_without_neighbours_have_no_pairs() -> None:
    """As in Google's rouge_score: one word has no pairs, so none can be right."""
    assert score("rouge-2", written(["London"], [["Paris"]])) == score("rouge-2", written(["Paris"], [["Paris"]])) == 0
    assert score("rouge-2", written(["so it is"], [["no", "so it is"]])) == 1
    assert score("rouge-l", written(["<"], [[">"]])) == score("rouge-1", written(["<"], [[">"]])) == 0


def test_distinct_counts_runs_of_words_once() -> None:
    found = written(["a b a b", "a b"], [["x"], ["y"]])
    assert score("distinct-1", found) == pytest.approx(2 / 6)
    assert score("distinct-2", found) == pytest.approx(2 / 4)


@pytest.mark.parametrize("right", [[[one[0]] for one in RIGHT], [[one[0], one[-1]] for one in RIGHT], RIGHT])
def test_bleu_and_chrf_equal_sacrebleu(right: list[list[str]]) -> None:
    found = written(ANSWERS, right)
    streams = [list(texts) for texts in zip_longest(*right)]
    assert score("bleu", found) == pytest.approx(BLEU().corpus_score(ANSWERS, streams).score, abs=1e-9)
    assert score("chrf", found) == pytest.approx(CHRF().corpus_score(ANSWERS, streams).score, abs=1e-9)
    several = {1: "1", 2: "2"}[len(streams)] if right is not RIGHT else "var"
    for name in ("bleu", "chrf"):
        assert find("metrics", name)().signature(found).startswith(f"nrefs:{several}|")


def test_chinese_is_cut_by_character() -> None:
    assert words("今天 rain!") == ["今", "天", "rain"]
    right = [["今天下雨了，我不出门。"], ["他喜欢猫。"]]
    answers = ["今天下雨，我不出门。", "他喜欢狗。"]
    assert unspaced([one[0] for one in right]) and not unspaced(["hello 你"])
    found = written(answers, right)
    plain = BLEU(tokenize="zh").corpus_score(answers, [[one[0] for one in right]]).score
    assert score("bleu", found) == pytest.approx(plain, abs=1e-9)
    assert "tok:zh" in find("metrics", "bleu")().signature(found)
    assert score("rouge-1", found) > 0.8


def test_intervals_and_paired_comparisons_take_texts() -> None:
    better = written([one[0] for one in RIGHT])
    scores = estimate(better, metrics_by_name(["perplexity", "token-f1", "bleu"]), Bootstrap(100))
    assert scores["token-f1"].value == 1.0 and scores["bleu"].value == pytest.approx(100.0)
    gain = paired_difference(better, written(), find("metrics", "rouge-l")(), Bootstrap(200))
    assert gain.estimate.value > 0.3 and gain.estimate.low > 0


def test_the_interval_of_what_repeated_rows_lower_holds_the_score() -> None:
    answers = [f"word{row} and{row}" for row in range(12)]
    found, metrics = written(answers, [["x"]] * 12), metrics_by_name(["distinct-1", "distinct-2"])
    compared = compare_pairs([found, found], metrics[0], Bootstrap(100)).scores
    for one in (*estimate(found, metrics, Bootstrap(100)).values(), *compared):
        assert one.low < one.value == one.high == 1.0


def test_rows_that_were_not_answered_count_for_likelihoods_only() -> None:
    tokens = np.full(10, 4)
    found = Written(4.0 * np.arange(10), tokens, tokens, np.array([2, 7]), ["a b", "c"], [["a b"], ["d"]])
    assert score("exact-match", found) == pytest.approx(0.5)
    assert score("nats-per-token", found) == pytest.approx(4.5)
    weights = np.zeros(10)
    weights[0] = 1
    assert math.isnan(find("metrics", "exact-match")().compute(found.sample(weights)))


def test_a_perplexity_beyond_all_numbers_is_worded() -> None:
    tokens = np.full(4, 3)
    lost = Written(np.array([9e3, 9e3, 5.0, 9e3]), tokens, 5 * tokens)
    fine = Written(np.full(4, 5.0), tokens, 5 * tokens)
    found = estimate(lost, metrics_by_name(["perplexity"]), Bootstrap(200))["perplexity"]
    assert math.isinf(found.value) and worded("perplexity", found.value, found.low, found.high) == "-"
    assert worded("perplexity", 3.0, None, None) == "3.000 (- – -)"
    gain = paired_difference(lost, lost, find("metrics", "perplexity")(), Bootstrap(200))
    assert math.isnan(gain.estimate.value) and 0 < gain.p_value <= 1
    said = worded_gain("perplexity", **gain.estimate.plain(), p_value=gain.p_value)
    assert said == "perplexity: the difference to the best baseline is no finite number"
    worse = paired_difference(lost, fine, find("metrics", "perplexity")(), Bootstrap(200))
    assert worse.estimate.value == -math.inf
