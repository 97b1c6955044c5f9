"""An average whose weights validation rows choose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from tunesmith.core.arrays import Array, Codes
from tunesmith.core.registry import register
from tunesmith.ensembles.combining.base import Combination
from tunesmith.evaluation.predictions import Predictions
from tunesmith.runs.mixing import likeliest


@register("combinations")
class Weighted(Combination):
    """Average the probabilities with the weights that make the validation rows' labels likeliest.

    p(c) = sum_k w_k p_k(c), w maximises sum_n log p(y_n); the problem has one optimum.

    Source: expectation maximisation, Dempster et al. 1977, JRSS B 39.
    """

    name: ClassVar[str] = "weighted"
    paper: ClassVar[str] = "Dempster et al. 1977, JRSS B 39"
    learns_from: ClassVar[Literal["nothing", "validation", "out-of-fold"]] = "validation"

    def learn(self, table: Array | None, labels: Codes | None, weights: Array | None) -> dict[str, Array]:
        """Find the weights."""
        assert table is not None and labels is not None
        return {"weights": likeliest([Predictions(one, labels) for one in table])}

    def answer(self, table: Array, learned: Mapping[str, Array]) -> Array:
        """Average with them."""
        found: Array = np.tensordot(learned["weights"], table, axes=1)
        return found
