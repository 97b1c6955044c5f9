"""What a carried-out recipe found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tunesmith.evaluation.statistics import Difference
from tunesmith.methods.base import Method
from tunesmith.recipe.loading import Checked
from tunesmith.runs.comparing import Judge, Scored
from tunesmith.runs.session import Session
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.corpus import Corpus
from tunesmith.training.preflight import Preflight
from tunesmith.training.ranking import Ranking
from tunesmith.training.trained import Trained
from tunesmith.training.trial import Trial


@dataclass
class Outcome:
    """Everything a run found, before it is written.

    Args:
        checked: the recipe.
        session: its model.
        corpus: its data.
        examples: rows trained on, of all candidates.
        preflight: what was found before the first step.
        predicted_peak_bytes: of the training, all candidates together.
        trained: what training left behind.
        tuned: the model with the best state, or the ensemble of all candidates.
        methods: of the deltas that answer, in their order.
        rankings: the states of their best epochs, in that order.
        settles: bring what each one's head keeps of training rows up to date with another state, in that order.
        ours: the tuned model's scores.
        baselines: theirs.
        gains: the tuned model against the best baseline.
        judge: how all was scored.
        seconds: of the whole run.
        peak_bytes: most memory held.
        warnings: sentences for the user.
        forgetting: scores on an earlier run's data before and after; empty when training started anew.
        candidates: what each candidate was and how it did on validation; empty without candidates.
        samples: what was asked, and what the model wrote before and after tuning; empty for tasks with labels.
        choice: the ways that were tried where the recipe left the method to be chosen, and why one was taken; else
            empty.
        quantization: what the quantised base lost against full precision; empty for a base in full precision.
        processes: how many trained together, and what each sent per step; empty for one process.
        scheme: what was learned from besides the labelled rows, and what that gained; empty without.
        ensemble: members, gains and cost where several answer together or their weights were averaged; else empty.
        unseen: how well classes without training rows are told by their attributes; empty without.
        began: when the run began, however often it has gone on since.
    """

    checked: Checked
    session: Session
    corpus: Corpus
    examples: int
    preflight: Preflight
    predicted_peak_bytes: int
    trained: Trained
    tuned: Tuned
    methods: list[Method]
    rankings: list[Ranking]
    settles: list[Callable[[Tuned], None]]
    ours: Scored
    baselines: list[Scored]
    gains: list[Difference]
    judge: Judge
    seconds: float
    peak_bytes: int
    warnings: list[str]
    forgetting: dict[str, Any] = field(default_factory=dict)
    candidates: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, str]] = field(default_factory=list)
    quantization: dict[str, Any] = field(default_factory=dict)
    processes: dict[str, int] = field(default_factory=dict)
    scheme: dict[str, Any] = field(default_factory=dict)
    unseen: dict[str, Any] = field(default_factory=dict)
    ensemble: dict[str, Any] = field(default_factory=dict)
    choice: dict[str, Any] = field(default_factory=dict)
    began: str = ""

    @property
    def split(self) -> str:
        """The split that is compared: test where there is one."""
        return self.judge.splits[-1]


def compared(common: Checked, checked: Checked, trial: Trial, facts: Preflight, chosen: bool) -> dict[str, Any]:
    """Describe one candidate beside the others.

    Args:
        common: the recipe that all vary.
        checked: the candidate's.
        trial: its training.
        facts: found before it.
        chosen: whether it is the one that is kept.
    Returns:
        Plain values.
    """
    settings = {"method": checked.method.describe(), "seed": checked.recipe.seed}
    same = common.recipe.training.model_dump()
    training = {k: v for k, v in checked.recipe.training.model_dump().items() if v != same[k]}
    best = trial.trained.best_epoch
    defaults = checked.method.model_dump(mode="json", exclude_defaults=True)
    changed = {**defaults, **training, "seed": checked.recipe.seed}
    what = ", ".join([checked.method.name, *(f"{key}={value}" for key, value in changed.items())])
    return {
        **settings,
        "what": what,
        "training": training,
        "chosen": chosen,
        "trainable_parameters": facts.trainable,
        "epochs": trial.epoch,
        "best_epoch": best,
        "diverged_at_step": trial.trained.diverged or None,
        "validation": trial.trained.history[best - 1] if best else {},
        "history": trial.trained.history,
    }
