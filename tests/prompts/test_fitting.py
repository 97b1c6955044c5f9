"""A prompt that is too long loses demonstrations, then the ends of the longest fields, and says how much."""

import pytest

from tunesmith.core.errors import RecipeError
from tunesmith.prompts.fitting import Fitted, fit
from tunesmith.prompts.prompt import Prompt

PROMPT = Prompt(template="First: {text} Second: {other}")


def fitted(first: int, second: int, limit: int) -> Fitted:
    row = {"text": "x" * first, "other": "y" * second}
    return fit(lambda row, shown: PROMPT.render(row, (), shown), row, PROMPT.fields, [],
               lambda found: len(found.before), limit)  # fmt: skip


@pytest.mark.parametrize(
    ("lengths", "kept"),
    [((30, 4), (16, 4)), ((4, 30), (4, 16)), ((30, 29), (10, 10)), ((300, 300), (10, 10)), ((8, 12), (8, 12))],
)
def test_the_longest_fields_lose_their_ends(lengths: tuple[int, int], kept: tuple[int, int]) -> None:
    found = fitted(*lengths, limit=len("First:  Second: ") + 20)
    assert (found.rendered.before.count("x"), found.rendered.before.count("y")) == kept
    assert found.lost == sum(lengths) - sum(kept)


def test_a_prompt_without_room_for_the_row() -> None:
    with pytest.raises(RecipeError, match=r"without the row's text the prompt has 15 tokens, and the model reads 10"):
        fitted(30, 30, limit=10)
