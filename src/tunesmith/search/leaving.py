"""Changes that leave a round of the closed loop early, so that those that are ahead have the time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

_FEW = 4  # changes; the median of fewer says little


@dataclass
class Leaving:
    """Listens to the scores of a round: behind its median after a share of the epochs, a change is not trained on.

    A change is judged by the first score at that share or after it. It leaves one score later, when the others of as
    many epochs have been judged too, so that their order in the pass does not matter.

    Args:
        share: of a change's epochs after which it is judged; nothing leaves at 1. [fraction]
        epochs: of every change of the round, by number.
        higher_is_better: of the score.
        left: why those left that did, by number.

    Source: median stopping, Golovin et al. 2017, KDD, "Google Vizier", section 3.2.1. Differs: the score at one share
    of the epochs instead of the mean so far, once.
    """

    share: float
    epochs: Mapping[int, int]
    higher_is_better: bool
    left: dict[int, str] = field(default_factory=dict)
    _judged: dict[int, tuple[int, float]] = field(default_factory=dict)  # epoch and score that decide
    _heard: dict[int, int] = field(default_factory=dict)  # the latest epoch

    def __call__(self, number: int, epoch: int, score: float) -> bool:
        """Hear a score.

        Args:
            number: of the change.
            epoch: after which it was scored.
            score: on validation.
        Returns:
            Whether the change leaves.
        """
        if epoch <= self._heard.get(number, 0):  # its pass broke and is made again
            self._judged.pop(number, None)
        self._heard[number] = epoch
        if number not in self._judged:
            if epoch >= self.share * self.epochs[number]:
                self._judged[number] = epoch, score
            return False
        if epoch >= self.epochs[number] or len(self._judged) < _FEW:
            return False
        judged, own = self._judged[number]
        middle = median(score for _, score in self._judged.values())
        behind = own < middle if self.higher_is_better else own > middle
        if behind:
            self.left[number] = (
                f"left after epoch {epoch} of {self.epochs[number]}: {own:.4f} in epoch {judged}, the median of the "
                f"round there {middle:.4f}"
            )
        return behind
