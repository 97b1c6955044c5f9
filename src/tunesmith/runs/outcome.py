"""What a carried-out recipe found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tunesmith.evaluation.statistics import Difference
from tunesmith.recipe.loading import Checked
from tunesmith.runs.comparing import Judge, Scored
from tunesmith.runs.session import Session
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.corpus import Corpus
from tunesmith.training.loop import Trained
from tunesmith.training.preflight import Preflight


@dataclass
class Outcome:
    """Everything a run found, before it is written.

    Args:
        checked: the recipe.
        session: its model.
        corpus: its data.
        preflight: what was found before the first step.
        trained: what training left behind.
        tuned: the model with the best state.
        ours: the tuned model's scores.
        baselines: theirs.
        gains: the tuned model against the best baseline.
        judge: how all was scored.
        seconds: of the whole run.
        peak_bytes: most memory held.
        warnings: sentences for the user.
        quantization: what the quantised base lost against full precision; empty for a base in full precision.
    """

    checked: Checked
    session: Session
    corpus: Corpus
    preflight: Preflight
    trained: Trained
    tuned: Tuned
    ours: Scored
    baselines: list[Scored]
    gains: list[Difference]
    judge: Judge
    seconds: float
    peak_bytes: int
    warnings: list[str]
    quantization: dict[str, Any] = field(default_factory=dict)

    @property
    def split(self) -> str:
        """The split that is compared: test where there is one."""
        return self.judge.splits[-1]
