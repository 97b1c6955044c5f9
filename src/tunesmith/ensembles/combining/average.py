"""Soft vote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from tunesmith.core.arrays import Array
from tunesmith.core.registry import register
from tunesmith.ensembles.combining.base import Combination, even


@register("combinations")
class Average(Combination):
    """Average the probabilities (soft vote): p(c) = sum_k w_k p_k(c), all w_k alike, or as boosting weights them.

    Source: Lakshminarayanan et al. 2017, arXiv:1612.01474.
    """

    name: ClassVar[str] = "average"
    paper: ClassVar[str] = "Lakshminarayanan et al. 2017, arXiv:1612.01474"

    def answer(self, table: Array, learned: Mapping[str, Array]) -> Array:
        """Average."""
        found: Array = np.tensordot(even(table, learned), table, axes=1)
        return found
