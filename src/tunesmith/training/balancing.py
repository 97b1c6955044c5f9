"""What losses know of the classes: how many rows each has, and how much each weighs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from tunesmith.core.errors import RecipeError, unknown
from tunesmith.recipe.schema import TrainingSettings
from tunesmith.tasks.loss import Classes


def classes_of(
    labels: np.ndarray[Any, Any],
    names: Sequence[str],
    settings: TrainingSettings,
    row_weights: np.ndarray[Any, Any] | None = None,
) -> Classes:
    """Count the rows of every class as an epoch has them, and weigh the classes.

    Args:
        labels: (rows,), a code per training row.
        names: of the codes.
        settings: the recipe's.
        row_weights: (rows,), factor of each row's own loss; None where all weigh the same.
    Returns:
        Counts, and weights where `training.class_weights` asks for them or rows have some; a row's factor, that of its
        class times its own, has the mean 1 over the training rows.
    Raises:
        RecipeError: a weight for a label that the data does not have.
    """
    counts = np.bincount(labels[labels >= 0], minlength=len(names))
    if settings.balance != "none":
        present = counts > 0
        counts = np.where(present, counts.max() if settings.balance == "oversample" else counts[present].min(), 0)
    own = np.ones(len(names))  # mean of the rows' own weights
    if row_weights is not None:
        sums = np.bincount(labels[labels >= 0], row_weights[labels >= 0], len(names))
        own = sums / np.maximum(np.bincount(labels[labels >= 0], minlength=len(names)), 1)
    wanted = settings.class_weights if row_weights is None else settings.class_weights or {}
    weights = _weights(counts, names, wanted, own)
    return Classes(torch.from_numpy(counts), None if weights is None else torch.from_numpy(weights))


def _weights(
    counts: np.ndarray[Any, Any],
    names: Sequence[str],
    wanted: str | Mapping[str, float] | None,
    own: np.ndarray[Any, Any],
) -> np.ndarray[Any, Any] | None:
    """Give each class its factor; the mean over the rows is 1."""
    if wanted is None:
        return None
    if isinstance(wanted, Mapping):
        strange = [name for name in wanted if name not in names]
        if strange:
            raise RecipeError(f"training.class_weights: {unknown('label', strange[0], names)}")
        found = np.array([wanted.get(name, 1.0) for name in names])
    else:
        found = 1.0 / np.maximum(counts, 1) ** (1.0 if wanted == "balanced" else 0.5)
    return found * (counts.sum() / (found * own * counts).sum())
