"""Logistic regression on the frozen model's features."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np

from tunesmith.core.arrays import Array
from tunesmith.core.registry import register
from tunesmith.evaluation.baselines.base import Baseline, Material


@register("baselines")
class LinearProbe(Baseline):
    """Logistic regression on features of unit length times their number's root; regularisation C = 1."""

    name: ClassVar[str] = "linear-probe"

    def trainable(self, material: Material) -> int:
        """Count a weight per feature and a bias per class."""
        return material.classes * (material.width + 1)

    def predict(self, material: Material, splits: list[str]) -> dict[str, Array]:
        """Fit on train and predict."""
        if len(np.unique(material.labels["train"])) == 1:  # nothing to separate: new rows of one label
            only = np.eye(material.classes)[material.labels["train"][0]]
            return {split: np.tile(only, (len(material.labels[split]), 1)) for split in splits}
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.filterwarnings("ignore", "The number of unique classes")  # few rows of many labels are no mistake
            model = LogisticRegression(max_iter=200).fit(_scaled(material.features["train"]), material.labels["train"])
        found = {}
        for split in splits:
            known = model.predict_proba(_scaled(material.features[split]))
            full = np.zeros((len(known), material.classes))
            full[:, model.classes_] = known
            found[split] = full
        return found


def _scaled(features: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(lengths, 1e-12) * np.sqrt(features.shape[1])
