"""The best attempts of a closed loop, compared row by row on the rows that chose: groups, every pair, what changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.evaluation.changes import changes
from tunesmith.evaluation.comparison import Comparison, Entry, differing, flattened
from tunesmith.evaluation.importance import importances
from tunesmith.evaluation.pairs import Compared, compare_pairs, enough
from tunesmith.evaluation.statistics import Estimate
from tunesmith.runs.labelling import Labelling
from tunesmith.search.answering import compared_by
from tunesmith.search.attempts import Attempt
from tunesmith.search.loop import ClosedLoop

_MOST = 6  # attempts that are compared


def compare_attempts(loop: ClosedLoop) -> Comparison | None:
    """Compare the best complete attempts by their answers; the recipe as written and the kept one are among them.

    Args:
        loop: that has ended.
    Returns:
        The comparison, the best score first; None where fewer than two attempts have answers.
    Raises:
        CheckpointError: a file of answers is damaged.
    """
    assert loop.best is not None
    picked = _picked(loop, loop.best.number)
    if len(picked) < 2:
        return None
    family = loop.passes.family_of(loop.wanted.load({}))
    labels = family.corpus.label_names if isinstance(family, Labelling) else []
    split = family.corpus.splits["validation"]
    rows = range(len(split.index))
    found = [loop.record.answers(one.number) for one in picked]
    by, bootstrap = compared_by(loop.wanted.metric, bool(labels)), enough(loop.wanted.bootstrap, len(found))
    tested = compare_pairs(found, by, bootstrap)
    model = sum(one.numel() for one in family.session.backbone.model.parameters())
    entries = [
        _entry(one, by.name, (tested, at), own, model)
        for at, (one, own) in enumerate(zip(picked, _settings(loop, picked), strict=True))
    ]
    first, second = _ends([one.number for one in picked], loop.best.number)
    changed = [changes((first, second), (found[first], found[second]), by, labels)]
    return Comparison(
        entries, by.name, by.higher_is_better, "validation", [split.place(row) for row in rows],
        [split.text(row) for row in rows] if labels else [], tested.pairs, changed, [], bootstrap,
    )  # fmt: skip


def mattered(loop: ClosedLoop) -> dict[str, float]:
    """Share the spread of all complete attempts' scores out among the settings in which they differ.

    Args:
        loop: that has ended.
    Returns:
        Share by setting; none where there are too few attempts.
    """
    able = [one for one in loop.attempts if one.outcome.state == "complete" and one.outcome.value is not None]
    return importances(_settings(loop, able), [one.outcome.value or 0.0 for one in able])


def _settings(loop: ClosedLoop, tried: Sequence[Attempt]) -> list[dict[str, Any]]:
    """Return of each attempt the settings in which they differ; None where one has no such setting."""
    settings = [flattened(loop.wanted.load(one.values).resolved()) for one in tried]
    keys = differing(settings)
    return [{key: own.get(key) for key in keys} for own in settings]


def _picked(loop: ClosedLoop, best: int) -> list[Attempt]:
    """Take the recipe as written, the kept attempt, and of the others the best ones."""
    able = [one for one in loop.attempts if one.outcome.state == "complete" and loop.record.has_answers(one.number)]
    ranked = sorted(able, key=lambda one: one.outcome.key(loop.wanted.higher_is_better))
    ranked.sort(key=lambda one: one.number not in (0, best))
    return sorted(ranked[:_MOST], key=lambda one: one.outcome.key(loop.wanted.higher_is_better))


def _ends(numbers: Sequence[int], best: int) -> tuple[int, int]:
    """Find the places of the kept attempt and of the recipe as written; of the best other one where that was kept."""
    kept = numbers.index(best) if best in numbers else 0
    start = numbers.index(0) if 0 in numbers else kept
    return kept, start if start != kept else next(at for at in range(len(numbers)) if at != kept)


def _entry(one: Attempt, metric: str, tested: tuple[Compared, int], settings: Mapping[str, Any], model: int) -> Entry:
    compared, place = tested
    scores = {name: Estimate.of(score) for name, score in one.outcome.scores.items()}
    costs = {
        "training_seconds": one.outcome.seconds,
        "trainable_parameters": one.outcome.trainable,
        "trainable_share": one.outcome.trainable / model,
    }
    curve = one.errors.curve if one.errors is not None else []
    return Entry(
        f"attempt {one.number}", "", {**scores, metric: compared.scores[place]}, {}, compared.groups[place], costs,
        [{"epoch": epoch, metric: score} for epoch, score in enumerate(curve, 1)], dict(settings),
    )  # fmt: skip
