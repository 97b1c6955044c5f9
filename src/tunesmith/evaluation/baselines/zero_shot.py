"""Labels' texts as prototypes."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tunesmith.core.arrays import Array
from tunesmith.core.registry import register
from tunesmith.evaluation.baselines.base import Baseline, Material

_SCALE = 20.0  # of the cosines before the softmax; it does not change which class wins


@register("baselines")
class ZeroShot(Baseline):
    """Embed the labels' names and descriptions with the untuned model and take the nearest one; no example is used."""

    name: ClassVar[str] = "zero-shot"
    needs_label_text: ClassVar[bool] = True

    def predict(self, material: Material, splits: list[str]) -> dict[str, Array]:
        """Score each row by its cosine with every label's texts."""
        prototypes = material.label_features()
        found = {}
        for split in splits:
            logits = _SCALE * _directions(material.features[split]) @ prototypes.T
            powers = np.exp(logits - logits.max(1, keepdims=True))
            found[split] = powers / powers.sum(1, keepdims=True)
        return found


def _directions(vectors: np.ndarray[Any, Any]) -> Array:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float64) / np.maximum(lengths, 1e-12)
