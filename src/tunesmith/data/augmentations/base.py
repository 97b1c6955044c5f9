"""What an augmentation is: it draws another form of a text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from tunesmith.core.named import build_named
from tunesmith.core.settings import Component, setting

_WORD = re.compile(r"\S+")
PLACEHOLDER = re.compile(r"<[A-Z]+_[0-9]+>")  # what redaction writes stays as it is


class Augmentation(Component):
    """Base of every augmentation. Its file registers one subclass with `@register("augmentations")`."""

    name: ClassVar[str]
    rate: float = setting(0.1, "Share of the words that are changed, on average.", unit="fraction", gt=0, le=1)

    def words(self, words: list[str], draw: np.random.Generator) -> list[str]:
        """Draw another form of a text's words.

        Args:
            words: as they stand between white space, at least one.
            draw: the numbers to draw from, the text's own.
        Returns:
            At least one word.
        """
        raise NotImplementedError

    def text(self, text: str, draw: np.random.Generator) -> str:
        """Draw another form of a text; one without words stays as it is.

        Args:
            text: any.
            draw: the numbers to draw from.
        Returns:
            The text; its white space becomes single spaces where a word changed.
        """
        words = _WORD.findall(text)
        changed = self.words(words, draw) if words else words
        return text if changed == words else " ".join(changed)

    def chosen(self, count: int, draw: np.random.Generator) -> list[bool]:
        """Draw which of some places are changed.

        Args:
            count: of the places.
            draw: the numbers to draw from.
        Returns:
            One truth value per place.
        """
        found: list[bool] = (draw.random(count) < self.rate).tolist()
        return found


def build_augmentations(given: Sequence[dict[str, Any]]) -> list[Augmentation]:
    """Build the augmentations of a checked recipe.

    Args:
        given: `data.augmentation`: name and settings of each.
    Returns:
        In their order.
    """
    return [build_named("augmentations", one) for one in given]
