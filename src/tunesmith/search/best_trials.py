"""The best trials of a study, compared row by row on the rows that chose: groups, every pair, what changed."""

from __future__ import annotations

from collections.abc import Sequence
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


def compare_best(
    trials: Sequence[StudyTrial], answers: Path, run: Run, metric: str, higher_is_better: bool
) -> Comparison | None:
    """Compare the best complete trials by their answers.

    Args:
        trials: of the study.
        answers: folder in which their answers are.
        run: the best trial, carried out alone.
        metric: that decides; "validation loss" is compared by the loss of each row.
        higher_is_better: its direction.
    Returns:
        The comparison, the best first; None where fewer than two trials have answers, as on folds.
    Raises:
        CheckpointError: a file of answers is damaged.
    """
    able = [one for one in trials if one.outcome.state == "complete" and one.same_as is None]
    able = [one for one in able if answers_in(answers, one.number).is_file()]
    able = sorted(able, key=lambda one: one.key(higher_is_better))[:_MOST]
    if len(able) < 2:
        return None
    read = [read_predictions(answers_in(answers, one.number), _SPLIT, run.labels) for one in able]
    by, where, found = compared_by(metric, bool(run.labels)), read[0][0], [result for _, result in read]
    bootstrap = enough(run.bootstrap, len(found))
    tested = compare_pairs(found, by, bootstrap)
    entries = [_entry(one, by.name, tested, at, run) for at, one in enumerate(able)]
    texts, notes = texts_of(run, _SPLIT, where)
    changed = [changes((0, 1), (found[0], found[1]), by, run.labels)]
    return Comparison(
        entries, by.name, by.higher_is_better, _SPLIT, where, texts, tested.pairs, changed, [], bootstrap, notes
    )


def _entry(one: StudyTrial, metric: str, tested: Compared, place: int, run: Run) -> Entry:
    scores = {name: _estimate(score) for name, score in one.outcome.scores.items()}
    before = {
        kind: {name: _estimate(score) for name, score in splits.get(_SPLIT, {}).items()}
        for kind, splits in run.summary["baselines"].items()
    }
    costs = {"training_seconds": one.outcome.seconds, "trainable_parameters": one.outcome.trainable}
    history = [{"epoch": epoch, metric: score} for _, epoch, score in one.reports]
    return Entry(
        f"trial {one.number}", "", {**scores, metric: tested.scores[place]}, before, tested.groups[place], costs,
        history, dict(one.parameters),
    )  # fmt: skip


def _estimate(score: dict[str, Any]) -> Estimate:
    return Estimate(*(float("nan") if score[key] is None else score[key] for key in ("value", "low", "high")))
