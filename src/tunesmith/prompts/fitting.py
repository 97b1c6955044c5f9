"""A prompt that is longer than a model reads: demonstrations go first, then the ends of the row's longest fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tunesmith.core.errors import RecipeError
from tunesmith.prompts.prompt import Rendered

Fill = Callable[[Mapping[str, str], Sequence[str]], Rendered]


@dataclass(frozen=True)
class Fitted:
    """A prompt within its limit.

    Args:
        rendered: the text.
        shown: demonstrations in it. [count]
        dropped: demonstrations that did not fit. [count]
        lost: characters of the row that did not fit. [count]
    """

    rendered: Rendered
    shown: int = 0
    dropped: int = 0
    lost: int = 0


def fit(
    fill: Fill,
    row: Mapping[str, str],
    fields: Sequence[str],
    demonstrations: Sequence[str],
    count: Callable[[Rendered], int],
    limit: int,
) -> Fitted:
    """Fill in a prompt and cut it where it is too long.

    Args:
        fill: fills a row and some demonstrations in.
        row: a value for every field.
        fields: of the row that the prompt shows.
        demonstrations: the most fitting first; it stands last, next to the row.
        count: tokens of a text. [tokens]
        limit: most tokens. [tokens]
    Returns:
        The text, and what was left out of it.
    Raises:
        RecipeError: what is the same for all rows leaves no room for the row.
    """

    def filled(kept: int, given: Mapping[str, str]) -> Rendered:
        return fill(given, list(reversed(demonstrations[:kept])))

    kept = _most(len(demonstrations), lambda number: count(filled(number, row)) <= limit)
    if kept is not None:
        return Fitted(filled(kept, row), kept, len(demonstrations) - kept)

    def cut(size: int) -> dict[str, str]:
        return {**row, **{name: row[name][:size].rstrip() for name in fields if len(row.get(name, "")) > size}}

    longest = max((len(row.get(name, "")) for name in fields), default=0)
    room = _most(longest, lambda size: count(filled(0, cut(size))) <= limit)
    if not room:
        raise RecipeError(
            f"prompt.template: without the row's text the prompt has {count(filled(0, cut(0)))} tokens, "
            f"and the model reads {limit} besides the answer, so nothing is left for the row. Shorten the prompt, or "
            "raise data.max_tokens if the model allows it."
        )
    lost = sum(max(0, len(row.get(name, "")) - room) for name in fields)
    return Fitted(filled(0, cut(room)), 0, len(demonstrations), lost)


def _most(top: int, fits: Callable[[int], bool]) -> int | None:
    """Find the largest number up to `top` that fits; None where not even 0 does."""
    if fits(top):
        return top
    low, high = -1, top
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return None if low < 0 else low
