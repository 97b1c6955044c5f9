"""Words in another order."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.data.augmentations.base import Augmentation


@register("augmentations")
class Swap(Augmentation):
    """Exchange words with words anywhere in the text."""

    name: ClassVar[str] = "swap"
    paper: ClassVar[str] = "Wei & Zou 2019, arXiv:1901.11196"

    def words(self, words: list[str], draw: np.random.Generator) -> list[str]:
        """Exchange."""
        found = list(words)
        for place, out in enumerate(self.chosen(len(words), draw)):
            if out:
                other = int(draw.integers(len(found)))
                found[place], found[other] = found[other], found[place]
        return found
