"""The best trials of a study, compared row by row on the rows that chose: groups, every pair, what changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.evaluation.changes import changes
from tunesmith.evaluation.comparison import Comparison, Entry
from tunesmith.evaluation.pairs import Compared, compare_pairs, enough
from tunesmith.evaluation.statistics import Estimate
from tunesmith.runs.predicted import read_predictions
from tunesmith.runs.run import Run
from tunesmith.runs.same_rows import texts_of
from tunesmith.search.answering import compared_by
from tunesmith.search.passes import answers_in
from tunesmith.search.trials import StudyTrial

_MOST = 6  # trials that are compared
_SPLIT = "validation"
_TUNING = ("method", "training", "seed")  # fields that no baseline sees


def compare_best(
    trials: Sequence[StudyTrial], answers: Path, best: tuple[StudyTrial, Run], metric: str, higher_is_better: bool
) -> Comparison | None:
    """Compare the best complete trials by their answers.

    Args:
        trials: of the study.
        answers: folder in which their answers are.
        best: the trial that is taken, and its run alone.
        metric: that decides; "validation loss" is compared by the loss of each row.
        higher_is_better: its direction.
    Returns:
        The comparison, the best first; None where fewer than two trials have answers, as on folds.
    Raises:
        CheckpointError: a file of answers is damaged.
    """
    taken, run = best
    whole = [one for one in trials if one.outcome.state == "complete" and one.same_as is None]
    first = sorted(whole, key=lambda one: one.key(higher_is_better))[:_MOST]
    able = [one for one in first if answers_in(answers, one.number).is_file()]
    if len(able) < 2:
        return None
    read = [read_predictions(answers_in(answers, one.number), _SPLIT, run.labels) for one in able]
    by, where, found = compared_by(metric, bool(run.labels)), read[0][0], [result for _, result in read]
    bootstrap = enough(run.bootstrap, len(found))
    tested = compare_pairs(found, by, bootstrap)
    before = {kind: splits.get(_SPLIT, {}) for kind, splits in run.summary["baselines"].items()}
    entries = [_entry(one, by.name, tested, at, before if _alike(one, taken) else {}) for at, one in enumerate(able)]
    texts, notes = texts_of(run, _SPLIT, where)
    if lost := [str(one.number) for one in first if one not in able]:
        notes = [*notes, f"Left out, as their answers were not kept: trials {', '.join(lost)}."]
    changed = [changes((0, 1), (found[0], found[1]), by, run.labels)]
    return Comparison(
        entries, by.name, by.higher_is_better, _SPLIT, where, texts, tested.pairs, changed, [], bootstrap, notes
    )


def _alike(one: StudyTrial, other: StudyTrial) -> bool:
    """Say whether two trials have the same baselines: nothing differs that an untuned model would see."""
    keys = [key for key in one.parameters.keys() | other.parameters.keys() if not key.startswith(_TUNING)]
    return all(one.parameters.get(key) == other.parameters.get(key) for key in keys)


def _entry(one: StudyTrial, metric: str, tested: Compared, place: int, before: Mapping[str, Any]) -> Entry:
    scores = {name: Estimate.of(score) for name, score in one.outcome.scores.items()}
    baselines = {kind: {name: Estimate.of(score) for name, score in own.items()} for kind, own in before.items()}
    costs = {"training_seconds": one.outcome.seconds, "trainable_parameters": one.outcome.trainable}
    history = [{"epoch": epoch, metric: score} for _, epoch, score in one.reports]
    return Entry(
        f"trial {one.number}", "", {**scores, metric: tested.scores[place]}, baselines, tested.groups[place], costs,
        history, dict(one.parameters),
    )  # fmt: skip
