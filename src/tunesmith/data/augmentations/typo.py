"""Typing errors."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.data.augmentations.base import Augmentation
from tunesmith.data.personal import PLACEHOLDER


@register("augmentations")
class Typo(Augmentation):
    """Leave out, double or exchange one character of a word; words of one character and placeholders stay."""

    name: ClassVar[str] = "typo"
    paper: ClassVar[str] = "Belinkov & Bisk 2018, arXiv:1711.02173"

    def words(self, words: list[str], draw: np.random.Generator) -> list[str]:
        """Mistype."""
        chosen = self.chosen(len(words), draw)
        return [self._mistyped(word, draw) if out else word for word, out in zip(words, chosen, strict=True)]

    def _mistyped(self, word: str, draw: np.random.Generator) -> str:
        if len(word) < 2 or PLACEHOLDER.search(word):
            return word
        place, kind = int(draw.integers(len(word) - 1)), int(draw.integers(3))
        first, second = word[place], word[place + 1]
        return word[:place] + ("", first + first, second + first)[kind] + (word[place + 1 :], word[place + 1 :],
                                                                           word[place + 2 :])[kind]  # fmt: skip
