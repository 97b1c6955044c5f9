"""Which training rows are shown."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from tunesmith.core.errors import DataError, RecipeError
from tunesmith.prompts.demonstrating import Demonstrator
from tunesmith.prompts.demonstrations.base import Vectors, dealt
from tunesmith.prompts.prompt import Prompt

ROWS = [{"text": f"{place}"} for place in (0, 1, 2, 10, 11, 50, 90, 91)]
LABELS = ["a", "a", "a", "a", "b", "b", "c", "c"]


def embed(texts: Sequence[str]) -> Vectors:
    angles = np.array([float(text) for text in texts]) * np.pi / 200
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def chooser(strategy: str, count: int, **settings: object) -> Demonstrator:
    prompt = Prompt(template="{text}", demonstrations={"count": count, "strategy": strategy, **settings})
    return Demonstrator(prompt, ROWS, LABELS, 3, embed, lambda rows: np.array([float(row) for row in rows]))


@pytest.mark.parametrize("strategy", ["random", "balanced", "diverse", "nearest", "useful"])
def test_a_row_is_never_shown_to_itself(strategy: str) -> None:
    for row, chosen in zip(ROWS, chooser(strategy, 3).chosen(ROWS), strict=True):
        assert len(set(chosen)) == 3
        assert all(ROWS[number] != row for number in chosen)


def test_nearest_ranks_by_cosine() -> None:
    found = chooser("nearest", 3).chosen([{"text": "9"}, {"text": "89"}])
    assert [[ROWS[number]["text"] for number in some] for some in found] == [["10", "11", "2"], ["90", "91", "50"]]


def test_diverse_goes_to_the_farthest() -> None:
    found = chooser("diverse", 3).chosen([{"text": "7"}])[0]
    texts = [int(ROWS[number]["text"]) for number in found]
    angles = sorted(texts)
    assert min(np.diff(angles)) >= 10, f"{texts} lie close together"


def test_balance_deals_labels_in_turn() -> None:
    for found in (chooser("balanced", 6), chooser("nearest", 6, balance=True), chooser("random", 6, balance=True)):
        chosen = found.chosen([{"text": "7"}])[0]
        assert Counter(LABELS[number] for number in chosen) == {"a": 2, "b": 2, "c": 2}
    assert dealt([0, 1, 3, 2], ["x", "x", "y", "y"]) == [0, 3, 1, 2]


def test_useful_takes_the_best_rated() -> None:
    assert chooser("useful", 2).chosen([{"text": "7"}])[0] == [7, 6]


def test_shown_to_all_alike_and_written_down_they_are_the_same() -> None:
    first = chooser("random", 2)
    written = first.prompt.changed(demonstrations={"examples": first.examples()})
    again = Demonstrator(written, [], [])
    for row in ({"text": "7"}, *ROWS):
        shown = [first.shown([row])(0), again.shown([row])(0)]
        assert shown[0] == shown[1]


def test_what_cannot_be_shown_is_refused() -> None:
    with pytest.raises(DataError, match="there are 8 training rows"):
        chooser("random", 9)
    with pytest.raises(RecipeError, match="prompt.demonstrations.strategy: unknown .* did you mean 'nearest'"):
        chooser("neerest", 1)
    prompt = Prompt(template="{text}", demonstrations={"examples": [{"text": "x"}]})
    with pytest.raises(RecipeError, match=r"examples\[0\]: it has no 'label'"):
        Demonstrator(prompt, [], [])
    prompt = Prompt(template="{text}", demonstrations={"count": 1, "strategy": "nearest"})
    with pytest.raises(RecipeError, match="turns them into vectors"):
        Demonstrator(prompt, ROWS, LABELS).chosen(ROWS)
