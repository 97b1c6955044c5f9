"""Hard vote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from tunesmith.core.arrays import Array
from tunesmith.core.registry import register
from tunesmith.ensembles.combining.base import Combination, even

_TIE = 1e-3  # share of the mean probability; less than any difference of votes, as one of K >= 2 members counts


@register("combinations")
class Vote(Combination):
    """Let every member name one class (hard vote): p(c) = sum_k w_k [c is the likeliest of k].

    Equal votes are decided by the mean probability, which makes up a thousandth of p. Boosting's weights make this its
    own rule.

    Source: Breiman 1996, Machine Learning 24, 123-140, section 2; Zhu et al. 2009, Statistics and its Interface 2.
    """

    name: ClassVar[str] = "vote"
    paper: ClassVar[str] = "Breiman 1996, Machine Learning 24"

    def answer(self, table: Array, learned: Mapping[str, Array]) -> Array:
        """Count votes."""
        weights = even(table, learned)
        votes = np.eye(table.shape[2])[table.argmax(2)]
        found: Array = np.tensordot(weights, (1 - _TIE) * votes + _TIE * table, axes=1)
        return found
