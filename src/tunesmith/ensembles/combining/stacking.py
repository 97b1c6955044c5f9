"""A model that learns which member to believe for which class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from tunesmith.core.arrays import Array, Codes
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.ensembles.combining.base import SMALLEST, Combination


@register("combinations")
class Stacking(Combination):
    """Let logistic regression read all members' log-probabilities; it learns from out-of-fold answers.

    p = softmax(b + sum_k W_k log p_k). Every training row is answered by members that trained on the other folds,
    which train in the same pass; members that trained on all rows answer in the end. A label without a training row
    gets no share.

    Source: Wolpert 1992, Neural Networks 5, 241-259.
    """

    name: ClassVar[str] = "stacking"
    paper: ClassVar[str] = "Wolpert 1992, Neural Networks 5"
    learns_from: ClassVar[Literal["nothing", "validation", "out-of-fold"]] = "out-of-fold"

    folds: int = setting(3, "Parts of the training rows; each is held out once.", unit="count", ge=2, le=20)
    penalty: float = setting(1.0, "Weight of the squared coefficients beside the rows' losses.", gt=0)

    @property
    def parts(self) -> int:
        """The folds. [count]"""
        return self.folds

    def learn(self, table: Array | None, labels: Codes | None, weights: Array | None) -> dict[str, Array]:
        """Fit the coefficients."""
        from sklearn.linear_model import LogisticRegression

        assert table is not None and labels is not None
        model = LogisticRegression(C=1 / self.penalty, max_iter=1000).fit(_read(table), labels)
        found, bias = model.coef_, model.intercept_
        if len(found) == 1:  # of two classes scikit-learn keeps the second one's
            found, bias = np.concatenate([-found, found]) / 2, np.concatenate([-bias, bias]) / 2
        coefficients, biases = np.zeros((table.shape[2], found.shape[1])), np.full(table.shape[2], -np.inf)
        coefficients[model.classes_], biases[model.classes_] = found, bias
        return {"coefficients": coefficients, "bias": biases}

    def answer(self, table: Array, learned: Mapping[str, Array]) -> Array:
        """Apply them."""
        logits = _read(table) @ learned["coefficients"].T + learned["bias"]
        chances = np.exp(logits - logits.max(1, keepdims=True))
        found: Array = chances / chances.sum(1, keepdims=True)
        return found


def _read(table: Array) -> Array:
    """Put the members' log-probabilities side by side, (R, K C)."""
    logs = np.log(np.maximum(table, SMALLEST))
    found: Array = np.concatenate(list(logs), 1)
    return found
