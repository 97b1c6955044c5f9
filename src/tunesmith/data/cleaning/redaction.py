"""Personal data."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import PrivateAttr, model_validator

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.data.cleaning.base import Change
from tunesmith.data.personal import PLACEHOLDER, FindNames, find_personal, same_value


@register("cleaning")
class Redaction(Change):
    """Replace mail addresses, phone, card, bank account and identity numbers by placeholders such as <MAIL_1>.

    Placeholders are counted within a row: the same address has the same number wherever it stands in the row, or in
    the conversation, and nothing about it is kept. So a run needs no list of addresses to answer as it was trained.
    Numbers of placeholders that stand in the row already are left out.
    With a tagger, names of persons become <NAME_1> and so on; the run needs it for what it is asked, too.
    """

    name: ClassVar[str] = "redaction"
    folders: ClassVar[tuple[str, ...]] = ("tagger",)
    kinds: tuple[Literal["mail", "iban", "id", "card", "phone"], ...] = setting(
        ("mail", "iban", "id", "card", "phone"), "What to replace, besides names."
    )
    tagger: str | None = setting(
        None,
        "Model that finds names of persons, which are replaced too: a folder or hub name of a token-classification "
        "model with labels PER or PERSON. Names stay when empty.",
        min_length=1,
    )
    _names: FindNames | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _replaces_something(self) -> Redaction:
        if not self.kinds and self.tagger is None:
            raise ValueError("kinds: nothing would be replaced. Name one or more, or a tagger")
        return self

    def ready(self, finder: Callable[[str], FindNames]) -> Change:
        """Load the tagger."""
        if self.tagger is None:
            return self
        found = self.model_copy()
        found._names = finder(self.tagger)
        return found

    @property
    def reads_model(self) -> bool:
        """Whether names are looked for."""
        return self.tagger is not None

    def text(self, text: str) -> str:
        """Replace in one text."""
        return self.cells([text])[0]

    def cells(self, cells: Sequence[str]) -> list[str]:
        """Replace, the same value by the same placeholder in all cells."""
        return self.rows([cells])[0]

    def rows(self, rows: Sequence[Sequence[str]]) -> list[list[str]]:
        """Replace in several rows; the tagger reads them together."""
        texts = [cell for cells in rows for cell in cells]
        assert self.tagger is None or self._names is not None, "a step with a tagger is made ready first"
        names = iter([[]] * len(texts) if self._names is None else self._names(texts))
        return [self._redacted(cells, [next(names) for _ in cells]) for cells in rows]

    def _redacted(self, cells: Sequence[str], names: Sequence[list[tuple[int, int]]]) -> list[str]:
        known: dict[tuple[str, str], str] = {}
        standing = {match.group() for cell in cells for match in PLACEHOLDER.finditer(cell)}
        free = {kind: _placeholders(kind, standing) for kind in (*self.kinds, "name")}
        found = []
        for cell, own in zip(cells, names, strict=True):
            parts, end = list[str](), 0
            for item in find_personal(cell, self.kinds, own):
                key = item.kind, same_value(item.kind, cell[item.start : item.end])
                if key not in known:
                    known[key] = next(free[item.kind])
                parts += [cell[end : item.start], known[key]]
                end = item.end
            found.append("".join([*parts, cell[end:]]))
        return found


def _placeholders(kind: str, standing: Container[str]) -> Iterator[str]:
    for number in itertools.count(1):
        if (placeholder := f"<{kind.upper()}_{number}>") not in standing:
            yield placeholder
