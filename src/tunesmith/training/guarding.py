"""Whether a step may change the weights: not when its numbers are none, nor when its loss leaps."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tunesmith.recipe.schema import GuardSettings


def objection(loss: float, before: Sequence[float], settings: GuardSettings) -> str:
    """Say what is wrong with a step's loss.

    Args:
        loss: of the step.
        before: losses of the steps before it.
        settings: of the recipe.
    Returns:
        The rest of a sentence that begins with "the loss"; empty when nothing is wrong.
    Example:
        >>> objection(9.0, [2.0, 3.0], GuardSettings(spike=2.0, window=2))
        'is 9, more than 2 times the largest of the 2 steps before (3)'
        >>> objection(5.0, [2.0, 3.0], GuardSettings(spike=2.0, window=2))
        ''
    """
    if not math.isfinite(loss):
        return f"is {loss}"
    last = before[-settings.window :]
    if settings.spike is None or len(last) < settings.window or loss <= settings.spike * max(last):
        return ""
    return (
        f"is {loss:g}, more than {settings.spike:g} times the largest of the {len(last)} steps before ({max(last):g})"
    )
