"""Rows of data as prompts in tokens, each with a place for its answer."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from tunesmith.core.errors import RecipeError
from tunesmith.data.tokens import TokenRows
from tunesmith.prompts.fitting import Fitted, fit
from tunesmith.prompts.prompt import Prompt, Rendered

Mode = Literal["masked", "causal", "paired", "similar"]
Row = Mapping[str, str]
Shown = Callable[[int], Sequence[str]]  # the demonstrations of a row, the most fitting first
_CHUNK = 512


@dataclass(frozen=True)
class Cuts:
    """What did not fit.

    Args:
        rows: of which the end was cut. [count]
        dropped: demonstrations that were left out, of all rows. [count]
        fewer: rows with fewer demonstrations than asked for. [count]
        spelled: rows that spell out the mask token, which was taken out of them. [count]
    """

    rows: int = 0
    dropped: int = 0
    fewer: int = 0
    spelled: int = 0

    def told(self, name: str, limit: int) -> list[str]:
        """Say what was cut.

        Args:
            name: of the split.
            limit: tokens that the model reads. [tokens]
        Returns:
            Sentences.
        """
        found = []
        if self.dropped:
            found.append(
                f"{name}: {self.dropped:,} demonstrations of {self.fewer:,} rows did not fit into {limit} tokens and "
                "were left out. Lower prompt.demonstrations.count, or raise data.max_tokens if the model allows it."
            )
        if self.rows:
            found.append(
                f"{name}: the prompts of {self.rows:,} rows are longer than {limit} tokens, and the end of the row's "
                "text was cut. Shorten the prompt, or raise data.max_tokens if the model allows it."
            )
        if self.spelled:
            found.append(f"{name}: {self.spelled:,} rows spell out the mask token; it was taken out of their text.")
        return found


class PromptReader:
    """Writes rows as prompts in tokens.

    Args:
        prompt: to fill in.
        tokenizer: of the model.
        mode: how the model answers; "similar" compares the row with the labels' texts.
        max_tokens: that the model reads. [tokens]
        labels: all of them.
        room: tokens that the answer takes besides. [tokens]
    Raises:
        RecipeError: the model answers at the end, and the template goes on behind the answer; no mask token.
    """

    def __init__(
        self, prompt: Prompt, tokenizer: Any, mode: Mode, max_tokens: int, labels: Sequence[str], room: int = 0
    ) -> None:
        self.prompt, self.tokenizer, self.mode, self.labels = prompt, tokenizer, mode, list(labels)
        self.max_tokens, self.limit = max_tokens, max_tokens - room
        empty = prompt.render(dict.fromkeys(prompt.fields, "x"), labels)  # white space around an empty field would join
        self.joiner = empty.joiner
        if mode in ("causal", "paired") and empty.after.strip():
            raise RecipeError(
                f"prompt.template: {empty.after.strip()[:40]!r} stands behind {{label}}, and the model writes its "
                "answer at the end. Move {label} to the end, or choose a masked model."
            )
        if mode == "masked" and tokenizer.mask_token_id is None:
            raise RecipeError("model: its tokenizer has no mask token, so there is no place for an answer.")
        if mode == "masked" and tokenizer.mask_token in empty.shown(""):
            raise RecipeError(
                f"prompt.template: it spells out {tokenizer.mask_token}; write the place of the answer as {{label}}, "
                "which holds as many masks as a word has tokens."
            )
        if mode == "similar" and (prompt.demonstrations.count or prompt.demonstrations.examples):
            raise RecipeError(
                "prompt.demonstrations: a sentence encoder compares texts and learns nothing from answers in front of "
                "them. Leave them out, or choose a model that fills in or writes."
            )

    @cached_property
    def _frame(self) -> int:
        """Special tokens that the tokenizer sets behind a text. [count]"""
        whole, plain = (self.tokenizer("a", add_special_tokens=some)["input_ids"] for some in (True, False))
        ends = [size for size in range(len(whole) - len(plain) + 1) if whole[size : size + len(plain)] == plain]
        return len(whole) - len(plain) - ends[0] if ends else 0

    def text(self, rendered: Rendered) -> str:
        """Return what is tokenised.

        Args:
            rendered: a prompt.
        Returns:
            For a masked model with its mask at the place of the answer, else what stands before the answer.
        """
        return rendered.shown(self.tokenizer.mask_token) if self.mode == "masked" else rendered.before

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenise texts.

        Args:
            texts: from `text`.
        Returns:
            Ids of each; what an answer follows ends without special tokens.
        """
        found = self.tokenizer(list(texts), add_special_tokens=True, truncation=False, verbose=False)["input_ids"]
        cut = self._frame if self.mode == "causal" else 0
        return [list(ids[: len(ids) - cut]) for ids in found]

    def count(self, rendered: Rendered) -> int:
        """Count the tokens of a prompt, the answer's place included, its words not. [tokens]

        Args:
            rendered: the prompt.
        """
        return len(self.tokens([self.text(rendered)])[0])

    def fitted(self, row: Row, demonstrations: Sequence[str] = ()) -> Fitted:
        """Fill in a row, cut where it is too long.

        Args:
            row: a value for every field.
            demonstrations: the most fitting first.
        Returns:
            The text, and what was left out.
        """
        return fit(self.fill, row, self.prompt.fields, demonstrations, self.count, self.limit)

    def fill(self, row: Row, demonstrations: Sequence[str] = ()) -> Rendered:
        """Fill in a row, however long it gets.

        Args:
            row: a value for every field.
            demonstrations: in the order of the text.
        Returns:
            The text.
        """
        if self.mode == "similar":
            return Rendered(self.prompt.row_text(row, self.labels), " ", "")
        return self.prompt.render(row, self.labels, demonstrations)

    def encode(self, rows: Sequence[Row], shown: Shown | None = None) -> tuple[TokenRows, Cuts]:
        """Write rows in tokens.

        Args:
            rows: a value for every field each.
            shown: gives the demonstrations of a row by its number.
        Returns:
            The rows, and what did not fit.
        Raises:
            RecipeError: the prompt leaves no room for a row.
        """
        ids, ends, full = array("i"), array("q", [0]), array("q")
        cut = dropped = fewer = spelled = 0
        mask = self.tokenizer.mask_token if self.mode == "masked" else None
        for start in range(0, len(rows), _CHUNK):
            chunk = [self._clean(row, mask) for row in rows[start : start + _CHUNK]]
            spelled += sum(clean != row for clean, row in zip(chunk, rows[start : start + _CHUNK], strict=True))
            given = [[] if shown is None else list(shown(start + number)) for number in range(len(chunk))]
            texts = [self.text(self.fill(row, some[::-1])) for row, some in zip(chunk, given, strict=True)]
            for row, some, found in zip(chunk, given, self.tokens(texts), strict=True):
                full.append(len(found))
                if len(found) > self.limit:
                    fitted = self.fitted(row, some)
                    found = self.tokens([self.text(fitted.rendered)])[0]
                    cut += fitted.lost > 0
                    dropped += fitted.dropped
                    fewer += fitted.dropped > 0
                ids.extend(found)
                ends.append(len(ids))
        flat = [np.array(part, kind) for part, kind in ((ids, np.int32), (ends, np.int64), (full, np.int64))]
        return TokenRows(*flat), Cuts(cut, dropped, fewer, spelled)

    def _clean(self, row: Row, mask: str | None) -> Row:
        """Take the mask token out of a row's own text: the model would take it for the answer's place."""
        if mask is None or not any(mask in row.get(name, "") for name in self.prompt.fields):
            return row
        return {name: value.replace(mask, " ") for name, value in row.items()}
