"""What a scheme did, and what it gained over the same run without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.evaluation.statistics import Result
from tunesmith.fewshot.schemes import SchemeTrial
from tunesmith.runs.family import Family
from tunesmith.runs.preparing import Prepared


def introduce(prepared: Sequence[Prepared]) -> None:
    """Let candidates with a scheme know each other, before they train.

    Args:
        prepared: candidates of one pass.
    Raises:
        RecipeError: what they should do together they cannot.
    """
    trials = [item.trial for item in prepared if isinstance(item.trial, SchemeTrial)]
    for trial in trials:
        trial.meet(trials)


def learned_besides(best: Prepared, answers: Mapping[str, Result], family: Family) -> dict[str, Any]:
    """Describe what was learned from besides the labelled rows, and measure what that gained.

    Args:
        best: the candidate that is kept.
        answers: its, by split.
        family: with the evaluated splits.
    Returns:
        Plain values: what the scheme did, "gain" by split and metric, "sentences" about it and "notes"; empty without
        a scheme.
    """
    trial, unlabelled, names = best.trial, family.corpus.unlabelled, family.corpus.label_names
    if not isinstance(trial, SchemeTrial):
        return {}
    found: dict[str, Any] = {**best.checked.scheme.describe(), **trial.findings(names), "notes": trial.notes()}
    if unlabelled is not None:
        left_out = unlabelled.dropped
        found["unlabelled"] = {"rows": unlabelled.rows, "in_use": len(unlabelled.split.index), "left_out": left_out}
    if best.plain is None:
        return found
    if best.plain.trained.diverged and not best.plain.trained.best_epoch:
        found["notes"].append("the same run without the scheme diverged, so there is nothing to compare with.")
        return found
    family.settle(best.plain.tuned)
    judge, gains = family.judge, dict[str, dict[str, Any]]()
    for split, ours in answers.items():
        theirs = family.answer(best.plain.tuned, family.corpus.splits[split])
        gains[split] = judge.paired(ours, theirs)
    name, split = judge.metrics[0].name, judge.splits[-1]
    return {
        **found,
        "gain": gains,
        "sentences": [
            f"{type(best.checked.scheme).name} {worded_gain(name, split, gains[split][name])} against the same run "
            "without it."
        ],
    }


def worded_gain(metric: str, split: str, gain: Mapping[str, float]) -> str:
    """Say what was gained, or lost.

    Args:
        metric: its name.
        split: of the rows.
        gain: "value", "low" and "high".
    Returns:
        The end of a sentence.
    """
    clear = gain["low"] > 0 or gain["high"] < 0
    what = ("gains" if gain["value"] > 0 else "loses") if clear else "makes no clear difference"
    return f"{what}: {metric} on {split} {gain['value']:+.4f} ({gain['low']:+.4f} to {gain['high']:+.4f})"
