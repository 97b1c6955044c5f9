"""Words left out."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.data.augmentations.base import Augmentation


@register("augmentations")
class Delete(Augmentation):
    """Leave words out; one at least stays."""

    name: ClassVar[str] = "delete"
    paper: ClassVar[str] = "Wei & Zou 2019, arXiv:1901.11196"

    def words(self, words: list[str], draw: np.random.Generator) -> list[str]:
        """Leave out."""
        kept = [word for word, out in zip(words, self.chosen(len(words), draw), strict=True) if not out]
        return kept or [words[int(draw.integers(len(words)))]]
