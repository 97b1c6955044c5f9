"""Rows that belong to no label: rejected where the best score stays below a threshold chosen on validation."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from tunesmith.core.arrays import Marks
from tunesmith.core.settings import Settings, setting

OUTSIDE = "out-of-scope"  # what predictions say; always the last label
_HALVINGS = 50  # of a range of logits, to the last digits of float64

Scores = np.ndarray[Any, np.dtype[np.float64]]


class RejectSettings(Settings):
    """How rows that belong to no label are told."""

    score: Literal["logit", "probability"] = setting(
        "logit", "What must reach the threshold: the highest logit (of a cosine head, the nearness), or probability."
    )
    share: float = setting(
        0.05,
        "Share of validation rows that may be rejected where validation has no rows out of scope.",
        unit="fraction",
        ge=0,
        lt=1,
    )


class Rejecting(nn.Module):
    """A head with one more class: its logit is the threshold, so it wins exactly where no other reaches it.

    logits = [z, t] for a threshold of logits, [z, log t + logsumexp z] for one of probabilities.

    Args:
        inner: the head, (R, D) -> (R, C).
        settings: of the task.
    """

    threshold: Tensor

    def __init__(self, inner: nn.Module, settings: RejectSettings) -> None:
        super().__init__()
        self.inner, self.score, self.share = inner, settings.score, settings.share
        self.register_buffer("threshold", torch.tensor(float("-inf") if self.score == "logit" else 0.0))

    def forward(self, x: Tensor) -> Tensor:
        """Map (R, D) to (R, C + 1)."""
        logits = self.inner(x)
        last = self.threshold.to(logits.dtype).expand(len(logits), 1)
        if self.score == "probability":
            least = torch.finfo(last.dtype).tiny  # a threshold of 0 or below rejects nothing, by a finite logit
            last = last.clamp(min=least).log() + torch.logsumexp(logits, 1, keepdim=True)
        return torch.cat([logits, last], 1)

    def scores(self, logits: Tensor) -> Tensor:
        """Return what is compared with the threshold: the mean answer over a row's wordings is out of scope below it.

        Args:
            logits: (W, R, C), of the inner head, for each wording of the rows.
        Returns:
            (R,).
        """
        if self.score == "probability":
            return logits.softmax(-1).mean(0).amax(1)
        return logits[0].amax(1) if len(logits) == 1 else _crossing(logits)


def _crossing(logits: Tensor) -> Tensor:
    """Find the threshold of logits from which on a row is rejected, (R,), by halving: no formula gives it."""
    low, high = logits.amin((0, 2)), logits.amax((0, 2))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        last = middle[None, :, None].expand(len(logits), -1, 1)
        chances = torch.cat([logits, last], -1).softmax(-1).mean(0)  # (R, C + 1)
        rejected = chances[:, -1] > chances[:, :-1].amax(1)
        low, high = torch.where(rejected, low, middle), torch.where(rejected, middle, high)
    return high


def plain(head: nn.Module) -> nn.Module:
    """Return a head without its threshold.

    Args:
        head: any.
    Returns:
        What trains.
    """
    return head.inner if isinstance(head, Rejecting) else head


def choose_threshold(scores: Scores, right: Marks, outside: Marks, share: float) -> float:
    """Choose a threshold: a row is rejected where its score lies below.

    With rows out of scope, the one with the highest mean of in-scope accuracy and out-of-scope recall; among equals
    the lowest. Without, the highest that rejects at most the share. Thresholds lie between the scores of two rows.

    Args:
        scores: (rows,), the best one of each row.
        right: (rows,), whether the best label is right; False out of scope.
        outside: (rows,), whether the row is out of scope.
        share: of rows that may be rejected where none is out of scope. [fraction]
    Returns:
        The threshold.
    Example:
        >>> outside = np.array([False, False, True])
        >>> choose_threshold(np.array([3.0, 2.0, 1.0]), ~outside, outside, share=0)
        1.5
    """
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    cuts = np.flatnonzero(np.append(True, ranked[1:] > ranked[:-1]))  # rows that may be rejected: the first so many
    if not outside.any():
        cut = int(cuts[cuts <= int(share * len(scores) + 1e-9)].max())
    else:
        lost = np.append(0, np.cumsum(right[order]))[cuts] / max(1, int((~outside).sum()))
        caught = np.append(0, np.cumsum(outside[order]))[cuts] / int(outside.sum())
        cut = int(cuts[np.argmax(caught - lost)])
    return float(ranked[0] - 1.0) if cut == 0 else float((ranked[cut - 1] + ranked[cut]) / 2)
