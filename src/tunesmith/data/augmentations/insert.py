"""Words that stand there again."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.data.augmentations.base import Augmentation


@register("augmentations")
class Insert(Augmentation):
    """Put copies of the text's own words in random places; no list of synonyms is needed."""

    name: ClassVar[str] = "insert"
    paper: ClassVar[str] = "Wei & Zou 2019, arXiv:1901.11196"

    def words(self, words: list[str], draw: np.random.Generator) -> list[str]:
        """Put in."""
        found = list(words)
        for word, more in zip(words, self.chosen(len(words), draw), strict=True):
            if more:
                found.insert(int(draw.integers(len(found) + 1)), word)
        return found
