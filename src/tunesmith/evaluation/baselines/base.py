"""What a baseline is: it sees the frozen model's features and predicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tunesmith.core.arrays import Array, Codes


@dataclass(frozen=True)
class Material:
    """What baselines may use.

    Args:
        features: by split, (rows, D), of the frozen model.
        labels: by split, (rows,).
        label_names: in the order of the codes.
        embed: turns texts into features of the frozen model, (texts, D).
        label_features: makes the mean direction of each label's texts, (C, D).
        width: D.
        seed: of the run.
    """

    features: dict[str, np.ndarray[Any, np.dtype[np.float32]]]
    labels: dict[str, Codes]
    label_names: list[str]
    embed: Callable[[list[str]], np.ndarray[Any, np.dtype[np.float32]]]
    label_features: Callable[[], Array]
    width: int
    seed: int

    @property
    def classes(self) -> int:
        """C."""
        return len(self.label_names)


class Baseline:
    """Base of every baseline. Its file registers one subclass with `@register("baselines")`."""

    name: ClassVar[str]
    reads: ClassVar[str] = "labels"  # or "texts", of a language model
    needs_features: ClassVar[bool] = True
    needs_label_text: ClassVar[bool] = False

    def trainable(self, material: Material) -> int:
        """Return how many numbers the baseline learns. [count]

        Args:
            material: what it uses.
        """
        return 0

    def predict(self, material: Material, splits: list[str]) -> dict[str, Array]:
        """Predict, learning from the split "train" alone.

        Args:
            material: what it uses.
            splits: to predict.
        Returns:
            By split, probabilities (rows, C).
        """
        raise NotImplementedError
