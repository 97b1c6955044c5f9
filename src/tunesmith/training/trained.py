"""What training leaves behind besides weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Trained:
    """What training left behind; the best state is in the model.

    Args:
        history: one row per epoch.
        losses: training loss per step.
        best_epoch: whose state was kept, from 1; 0 when training stopped before the first epoch's end.
        steps: optimizer updates.
        examples: rows trained on.
        seconds: spent in training steps, validation left out; trials of one pass share them.
        interrupted: whether the user stopped it.
        reason: why it stopped there, with the rows of that step.
        diverged: the step at which the loss was no longer a number or leapt, 0 when none was.
        averaged: epochs whose states' mean was kept; empty where one epoch's state was.
        kept_step: whose checkpoint was kept when training stopped before the first epoch's end; 0 for none.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    best_epoch: int = 0
    steps: int = 0
    examples: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    reason: str = ""
    diverged: int = 0
    kept_step: int = 0
    averaged: list[int] = field(default_factory=list)
