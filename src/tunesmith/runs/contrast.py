"""Several runs beside each other: what they recorded is read again, checked to be comparable, and tested."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.core.errors import CheckpointError, DataError, RecipeError, unknown
from tunesmith.core.files import hash_of, write_json, write_text
from tunesmith.evaluation.changes import changes
from tunesmith.evaluation.comparison import Comparison, Entry, differing, flattened, short_names
from tunesmith.evaluation.comparison_page import markdown, render
from tunesmith.evaluation.metrics.base import Metric
from tunesmith.evaluation.pairs import Compared, Seeds, compare_pairs, enough, over_seeds
from tunesmith.evaluation.statistics import Bootstrap, Estimate, Result, metric_sign, metrics_by_name
from tunesmith.runs.folder import check_new, staged
from tunesmith.runs.opening import metric_names
from tunesmith.runs.predicted import read_predictions
from tunesmith.runs.run import Run
from tunesmith.runs.same_rows import check_same_rows, texts_of

_MOST_CHANGES = 4  # other runs whose rows are shown beside those of the best
_NOT_SETTINGS = ("output", "evaluation.")  # beginnings of keys that say nothing about the model


@dataclass(frozen=True)
class Recorded:
    """A run and what it recorded of one split.

    Args:
        run: it.
        where: each row of the split stands.
        found: what the run did on them.
        settings: of its recipe, flat.
        history: per epoch.
    """

    run: Run
    where: list[str]
    found: Result
    settings: dict[str, Any]
    history: list[dict[str, Any]]


def compare(
    runs: Sequence[Run | str | Path],
    *,
    split: str | None = None,
    metric: str | None = None,
    output: str | Path | None = None,
) -> Comparison:
    """Compare runs by what they recorded: scores, tests of every pair, costs, what changed; no model is loaded.

    Args:
        runs: two or more, of one task, scored on the same rows.
        split: test or validation; test where all runs have it when None.
        metric: that ranks and is tested; the task's first when None.
        output: new folder for comparison.html, comparison.md and comparison.json; None writes nothing.
    Returns:
        The comparison, the best run first.
    Raises:
        DataError: runs of different tasks, rows, labels or metrics, with what differs.
        RecipeError: fewer than two runs, one twice, or an unknown split or metric.
        CheckpointError: a folder is no finished run or is damaged, or the output exists.
    """
    place = None if output is None else Path(output).expanduser()
    opened = _opened(runs)
    if place is not None:
        check_new(place)
    _check_alike(opened)
    chosen = _split(opened, split)
    measured = _metric(opened, metric)
    read = [_recorded(run, chosen) for run in opened]
    notes = check_same_rows([(one.run, one.where, one.found) for one in read], chosen, measured)
    found = _compared(read, chosen, measured, notes)
    if place is not None:
        with staged(place) as folder:
            write_json(folder / "comparison.json", found.plain())
            write_text(folder / "comparison.md", markdown(found))
            write_text(folder / "comparison.html", render(found))
    return found


def _opened(runs: Sequence[Run | str | Path]) -> list[Run]:
    if isinstance(runs, str | Path | Run) or len(runs) < 2:
        raise RecipeError("a comparison takes two or more runs, for example runs/first runs/second.")
    opened = [run if isinstance(run, Run) else Run.load(run) for run in runs]
    folders = [run.folder.resolve() for run in opened]
    again = next((folder for folder in folders if folders.count(folder) > 1), None)
    if again is not None:
        raise RecipeError(f"{again} is given twice; give every run once.")
    for run in opened:
        if run.unfinished:
            raise CheckpointError(f"{run.unfinished} Only finished runs are compared.")
    return opened


def _check_alike(runs: Sequence[Run]) -> None:
    """Refuse runs that were not asked the same."""
    first = runs[0]
    for run in runs[1:]:
        facts = {
            "task": [one.recipe.task.name for one in (first, run)],
            "metrics (evaluation.metrics)": [", ".join(metric_names(one.recipe)) for one in (first, run)],
            "confidence (evaluation.confidence)": [one.recipe.recipe.evaluation.confidence for one in (first, run)],
        }
        for what, (ours, theirs) in facts.items():
            if ours != theirs:
                raise DataError(
                    f"{first.folder} and {run.folder} cannot be compared: they differ in {what}: {ours} and {theirs}. "
                    "Compare runs of one task and the same metrics."
                )
        if first.labels != run.labels:
            odd = sorted(set(first.labels) ^ set(run.labels))[:5]
            raise DataError(
                f"{first.folder} and {run.folder} cannot be compared: their labels differ: "
                f"{', '.join(odd) or 'their order'} ({len(first.labels)} and {len(run.labels)} labels). Compare runs "
                "that were trained for the same labels."
            )


def _split(runs: Sequence[Run], wanted: str | None) -> str:
    shared = [name for name in ("test", "validation") if all(name in run.metrics for run in runs)]
    if not shared:
        held = "; ".join(f"{run.folder}: {', '.join(run.metrics) or 'none'}" for run in runs)
        raise DataError(f"the runs have no scored split in common ({held}). Train them with the same data.test.")
    if wanted is not None and wanted not in shared:
        raise RecipeError(unknown("split", wanted, shared))
    return wanted or shared[0]


def _metric(runs: Sequence[Run], wanted: str | None) -> Metric:
    names = metric_names(runs[0].recipe)
    if wanted is not None and wanted not in names:
        raise RecipeError(unknown("metric", wanted, names))
    return metrics_by_name([wanted or names[0]])[0]


def _recorded(run: Run, split: str) -> Recorded:
    where, found = read_predictions(run.folder / "predictions.parquet", split, run.labels)
    settings = flattened(run.recipe.resolved())
    history = [json.loads(line) for line in (run.folder / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    return Recorded(run, where, found, {k: v for k, v in settings.items() if not k.startswith(_NOT_SETTINGS)}, history)


def _compared(read: Sequence[Recorded], split: str, metric: Metric, notes: list[str]) -> Comparison:
    values = [metric.compute(one.found.sample()) for one in read]
    order = sorted(range(len(read)), key=lambda at: (np.isnan(values[at]), -metric_sign(metric) * values[at]))
    ranked = [read[at] for at in order]
    for one in ranked:
        _check_recorded(one, split, metric)
    first = ranked[0]
    bootstrap = enough(first.run.bootstrap, len(ranked))
    tested = compare_pairs([one.found for one in ranked], metric, bootstrap)
    keys = differing([one.settings for one in ranked])
    names = short_names([str(one.run.folder) for one in ranked])
    entries = [
        _entry(one, name, split, tested.groups[at], {key: one.settings.get(key) for key in keys})
        for at, (one, name) in enumerate(zip(ranked, names, strict=True))
    ]
    for entry, score in zip(entries, tested.scores, strict=True):
        entry.scores[metric.name] = score
    others = range(1, min(len(ranked), _MOST_CHANGES + 1))
    changed = [changes((0, at), (first.found, ranked[at].found), metric, first.run.labels) for at in others]
    texts, said = texts_of(first.run, split, first.where)
    return Comparison(
        entries, metric.name, metric.higher_is_better, split, first.where, texts, tested.pairs, changed,
        _seeds(ranked, tested, bootstrap), bootstrap, [*notes, *said],
    )  # fmt: skip


def _check_recorded(one: Recorded, split: str, metric: Metric) -> None:
    """Refuse predictions that are not those which were scored."""
    recorded, now = one.run.metrics[split][metric.name]["value"], metric.compute(one.found.sample())
    if recorded is not None and np.isfinite(now) and abs(recorded - now) > 1e-3 * max(1.0, abs(recorded)):
        raise CheckpointError(
            f"{one.run.folder}: predictions.parquet gives {metric.name} {now:.4f} on {split}, metrics.json says "
            f"{recorded:.4f}: one of them was changed. Train again or restore the file."
        )


def _entry(one: Recorded, name: str, split: str, group: str, settings: dict[str, Any]) -> Entry:
    summary = one.run.summary
    keys = ("seconds", "training_seconds", "peak_memory_bytes", "trainable_parameters", "examples_per_second", "steps",
            "best_epoch")  # fmt: skip
    costs = {key: summary[key] for key in keys}
    costs |= {"trainable_share": summary["table"][-1]["trainable_share"], "test_looks": len(one.run.openings)}
    before = {kind: _estimates(scores.get(split, {})) for kind, scores in summary["baselines"].items()}
    scores = _estimates(one.run.metrics[split])
    return Entry(name, str(one.run.folder), scores, before, group, costs, one.history, settings)


def _estimates(scores: dict[str, dict[str, Any]]) -> dict[str, Estimate]:
    return {name: Estimate.of(one) for name, one in scores.items()}


def _seeds(ranked: Sequence[Recorded], tested: Compared, bootstrap: Bootstrap) -> list[tuple[list[int], Seeds]]:
    """Put runs together that differ in their seed alone."""
    groups: dict[str, list[int]] = {}
    for at, one in enumerate(ranked):
        rest = {key: value for key, value in one.settings.items() if key != "seed"}
        groups.setdefault(hash_of(rest), []).append(at)
    return [
        (places, over_seeds([tested.scores[at].value for at in places], bootstrap.confidence))
        for places in groups.values()
        if len({ranked[at].settings["seed"] for at in places}) > 1
    ]
