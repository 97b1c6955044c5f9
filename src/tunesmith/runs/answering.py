"""Answers with probabilities of labels, and what gives them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith.core.arrays import Array
from tunesmith.models.loading import choose_device, is_at_hand

_log = logging.getLogger("tunesmith")


@dataclass(frozen=True)
class Prediction:
    """One text's answer.

    Args:
        label: the most probable one; None where its probability stays below the run's threshold: no answer.
        probability: of the most probable label.
        probabilities: of every label.
        where: the row stands in its file, or the file of an image; empty for a text that was given as such.
    """

    label: str | None
    probability: float
    probabilities: dict[str, float]
    where: str = ""

    @classmethod
    def of(cls, row: Iterable[float], labels: Sequence[str], threshold: float = 0.0) -> Prediction:
        """Word one row of probabilities.

        Args:
            row: one per label.
            labels: in that order.
            threshold: of the highest probability, below which there is no answer.
        Returns:
            The prediction.
        """
        by_label = dict(zip(labels, map(float, row), strict=True))
        label = max(by_label, key=by_label.__getitem__)
        return cls(label if by_label[label] >= threshold else None, by_label[label], by_label)


class Answering:
    """What answers texts with probabilities of labels."""

    labels: list[str]

    @property
    def threshold(self) -> float:
        """Of the highest probability, below which there is no answer."""
        return 0.0

    def predict_proba(self, texts: str | Sequence[str]) -> Array:
        """Compute probabilities; each kind says how.

        Args:
            texts: one or several.
        Returns:
            (texts, C), in the order of `labels`.
        """
        raise NotImplementedError

    def predict(self, texts: str | Sequence[str]) -> list[Prediction]:
        """Answer texts.

        Args:
            texts: one or several.
        Returns:
            One prediction per text.
        Raises:
            DataError: an empty text.
        """
        return self._worded(self.predict_proba(texts))

    def _worded(self, table: Array) -> list[Prediction]:
        return [Prediction.of(row, self.labels, self.threshold) for row in table]


def device_here(folder: Path, trained_on: str) -> list[str]:
    """Let another device answer where the one that trained is not here, and say so.

    Args:
        folder: of the run.
        trained_on: device of its recipe.
    Returns:
        Overrides of its recipe; none where the device is here.
    """
    if is_at_hand(trained_on):
        return []
    here = choose_device("auto")
    _log.warning("%s was trained on %s, which this machine does not have; it answers on %s.", folder, trained_on, here)
    return [f"model.device={here}"]
