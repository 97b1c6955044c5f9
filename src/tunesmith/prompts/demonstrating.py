"""Which training rows stand in front of a row: ranked by a strategy, never the row itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np

from tunesmith.core.errors import DataError, RecipeError
from tunesmith.core.registry import find
from tunesmith.prompts.demonstrations.base import Embed, Pool, Rate, dealt
from tunesmith.prompts.prompt import Prompt

Row = Mapping[str, str]
_CHUNK = 256  # rows that are compared with the pool at a time


class Demonstrator:
    """Chooses demonstrations.

    Args:
        prompt: with how many, and how they are chosen and written.
        rows: training rows that may be shown; those written in the prompt take their place.
        labels: of the rows.
        seed: of what is drawn.
        embed: turns texts into vectors.
        rate: says how useful rows of the pool are, by their numbers.
    Raises:
        RecipeError: an unknown strategy, or a demonstration in the prompt that lacks a field.
        DataError: fewer training rows than demonstrations.
    """

    def __init__(
        self,
        prompt: Prompt,
        rows: Sequence[Row],
        labels: Sequence[str],
        seed: int = 0,
        embed: Embed | None = None,
        rate: Rate | None = None,
    ) -> None:
        self.prompt, self.settings = prompt, prompt.demonstrations
        self.strategy = find("demonstrations", self.settings.strategy, "prompt.demonstrations.strategy")()
        if self.settings.examples:
            rows, labels = _written(prompt)
        self.rows, self.labels = list(rows), list(labels)
        self.count = self.settings.count or len(self.settings.examples)
        self.pool = Pool([prompt.row_text(row) for row in self.rows], self.labels, seed, embed, rate)
        if self.count > len(self.rows):
            what = "examples written in the prompt" if self.settings.examples else "training rows to show"
            raise DataError(
                f"prompt.demonstrations.count={self.count}: there are {len(self.rows)} {what}. Lower it, or add some."
            )

    @property
    def fixed(self) -> bool:
        """Whether all rows are shown the same ones, each row itself left out."""
        return bool(self.settings.examples) or not self.strategy.per_row

    @cached_property
    def _order(self) -> list[int]:
        """The pool for all rows, the best first."""
        if self.settings.examples:
            return list(range(len(self.rows)))[::-1]  # written in the order of the text, in which the best is last
        return self._balanced(self.strategy.order(self.pool, self.count + 1))

    def _balanced(self, order: Sequence[int]) -> list[int]:
        return dealt(order, self.labels) if self.settings.balance and not self.settings.examples else list(order)

    def chosen(self, rows: Sequence[Row]) -> list[list[int]]:
        """Choose for some rows.

        Args:
            rows: to be answered.
        Returns:
            Per row, numbers in the pool, the most fitting first.
        """
        texts = [self.prompt.row_text(row) for row in rows]
        if self.fixed:
            return [self._but(text, self._order) for text in texts]
        found: list[list[int]] = []
        for start in range(0, len(texts), _CHUNK):
            some = texts[start : start + _CHUNK]
            orders = np.argsort(-self.strategy.near(self.pool, some), axis=1, kind="stable")
            found += [self._but(text, self._balanced(order.tolist())) for text, order in zip(some, orders, strict=True)]
        return found

    def _but(self, text: str, order: Sequence[int]) -> list[int]:
        """Take the first ones that are not the row itself."""
        found: list[int] = []
        for row in order:
            if len(found) == self.count:
                break
            if self.pool.texts[row] != text:
                found.append(row)
        return found

    def shown(self, rows: Sequence[Row]) -> Callable[[int], list[str]]:
        """Choose for some rows and write the demonstrations.

        Args:
            rows: to be answered.
        Returns:
            A function from a row's number to its demonstrations, the most fitting first.
        """
        chosen = self.chosen(rows)
        return lambda number: [self.text(row) for row in chosen[number]]

    def text(self, row: int) -> str:
        """Write one row of the pool.

        Args:
            row: its number.
        Returns:
            The demonstration.
        """
        return self.prompt.demonstration(self.rows[row], self.labels[row])

    def examples(self) -> list[dict[str, str]]:
        """Return what all rows are shown, as a prompt file holds it, in the order of the text.

        One more than are shown comes first, where there is one: it is for rows that are among the others themselves.
        """
        chosen = self._order[: self.count + 1][::-1]
        fields = self.prompt.shown_fields
        return [{**{name: self.rows[row][name] for name in fields}, "label": self.labels[row]} for row in chosen]


def _written(prompt: Prompt) -> tuple[list[Row], list[str]]:
    """Take the demonstrations out of a prompt."""
    rows, labels = list[Row](), list[str]()
    for number, example in enumerate(prompt.demonstrations.examples):
        missing = [name for name in (*prompt.shown_fields, "label") if not example.get(name, "").strip()]
        if missing:
            raise RecipeError(
                f"prompt.demonstrations.examples[{number}]: it has no '{missing[0]}'. Each needs "
                f"{', '.join((*prompt.shown_fields, 'label'))}."
            )
        rows.append({name: value for name, value in example.items() if name != "label"})
        labels.append(example["label"])
    return rows, labels
