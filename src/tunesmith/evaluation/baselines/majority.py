"""The most frequent class."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tunesmith.core.arrays import Array
from tunesmith.core.registry import register
from tunesmith.evaluation.baselines.base import Baseline, Material


@register("baselines")
class Majority(Baseline):
    """Predict every class with its share of the training rows."""

    name: ClassVar[str] = "majority"
    needs_features: ClassVar[bool] = False

    def predict(self, material: Material, splits: list[str]) -> dict[str, Array]:
        """Give every row the training shares."""
        counts = np.bincount(material.labels["train"], minlength=material.classes).astype(np.float64)
        shares = counts / counts.sum()
        return {split: np.tile(shares, (len(material.labels[split]), 1)) for split in splits}
