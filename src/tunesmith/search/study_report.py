"""The report of a study: trials with intervals, what mattered, and what a score costs; HTML, Markdown, JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tunesmith.core.files import write_json, write_text
from tunesmith.evaluation import plots
from tunesmith.evaluation.comparison import Comparison
from tunesmith.evaluation.comparison_page import of_trials
from tunesmith.evaluation.metrics.base import number, scale_of, worded
from tunesmith.evaluation.page import page, safe, section, texts
from tunesmith.search.bookkeeping import optuna, quiet
from tunesmith.search.space import Choices, Range, Space
from tunesmith.search.trials import StudyTrial

HEADS = ("trial", "settings", "score on validation", "best epoch", "trained numbers", "seconds", "state")
_ENOUGH = 8  # complete trials below which nothing can be said about importance
_BROKEN = "<p class=soft>A line is broken where a trial has no such setting.</p>"
_AXES: dict[Literal["seconds", "trainable"], str] = {
    "seconds": "seconds of training (a trial's share of its pass)",
    "trainable": "trained numbers",
}
_ALONE = (
    "<p class=soft>They are not compared row by row: that takes two complete trials whose answers to the same rows "
    "were kept. Trials on folds answer rows of their own, and workers on other machines keep none.</p>"
)
_MOST = 400  # lines of the page's table; all are in trials.json


def importances(live: Any, trials: Sequence[StudyTrial]) -> dict[str, float]:
    """Say how much of the scores' variance each field explains.

    Args:
        live: study of optuna.
        trials: of it.
    Returns:
        Share by field, for those that every trial has; none where there are too few trials, or all scores are equal.
    """
    values = {one.outcome.value for one in trials if one.outcome.state == "complete" and one.same_as is None}
    if len(values) < 2 or sum(one.outcome.state == "complete" for one in trials) < _ENOUGH:
        return {}
    found = optuna().importance
    with quiet():
        shares = found.get_param_importances(live, evaluator=found.FanovaImportanceEvaluator(seed=0))
    return {name: float(share) for name, share in shares.items()}


def front(
    trials: Sequence[StudyTrial], higher_is_better: bool, cost: Literal["seconds", "trainable"] = "seconds"
) -> list[int]:
    """Find the complete trials that no other reaches at less or equal cost.

    Args:
        trials: any.
        higher_is_better: of the score.
        cost: seconds of training, or trained numbers.
    Returns:
        Their numbers, the cheapest first.
    """
    sign, best, found = 1 if higher_is_better else -1, -np.inf, list[int]()
    able = [one for one in trials if one.outcome.state == "complete" and one.same_as is None]
    for one in sorted(able, key=lambda one: (getattr(one.outcome, cost), -sign * (one.outcome.value or 0.0))):
        if sign * (one.outcome.value or 0.0) > best:
            best = sign * (one.outcome.value or 0.0)
            found.append(one.number)
    return found


def shown(metric: str, score: Mapping[str, Any] | None) -> str:
    """Word a score.

    Args:
        metric: its name, or "validation loss".
        score: value, low and high; None for none.
    Returns:
        The words.
    """
    if score is None or score.get("value") is None:
        return "-"
    if metric == "validation loss" or score.get("low") is None:
        return number(score["value"], ".4f")
    return worded(metric, score["value"], score["low"], score["high"])


def rows_of(trials: Sequence[StudyTrial], metric: str, higher_is_better: bool) -> list[list[str]]:
    """Word trials as the rows of a table.

    Args:
        trials: any.
        metric: that decides.
        higher_is_better: its direction.
    Returns:
        The best first, those that failed last.
    """
    order = ("complete", "stopped", "failed")
    ranked = sorted(trials, key=lambda one: (order.index(one.outcome.state), one.key(higher_is_better)))
    return [
        [
            str(one.number),
            "\n".join(one.overrides),
            shown(metric, one.outcome.scores.get(metric, {"value": one.outcome.value})),
            f"{one.outcome.best_epoch} of {one.outcome.epochs}" if one.outcome.epochs else "-",
            f"{one.outcome.trainable:,}" if one.outcome.trainable else "-",
            f"{one.outcome.seconds:.1f}" if one.same_as is None else f"as trial {one.same_as}",
            one.outcome.reason or {"stopped": "stopped early"}.get(one.outcome.state, one.outcome.state),
        ]
        for one in ranked
    ]


def sentences(result: Mapping[str, Any]) -> list[str]:
    """Say what a study found.

    Args:
        result: of it.
    Returns:
        Sentences.
    """
    counts, metric = result["trials"], result["metric"]
    said = [
        f"{counts['all']} trials of {result['strategy']['name']} in {result['batches']} batches and "
        f"{result['seconds']:.0f} s ({result['trials_per_minute']:.1f} a minute): {counts['complete']} complete, "
        f"{counts['stopped']} stopped early, {counts['failed']} failed, {counts['repeated']} repeated.",
        *(f"{said[0].upper()}{said[1:]}" for said in result["warm_start"]["sentences"]),
        result["choice"]["sentence"],
        f"Trial {result['best']} is taken: {' '.join(result['overrides'])}.",
        f"{metric} on validation, which chose it: {shown(metric, result['chosen_by'])}.",
    ]
    if result["nested"] is not None:
        said.append(result["nested"]["sentence"])
    if result["score"] is not None:
        said.append(f"{metric} on {result['measured_on']}: {shown(metric, result['score'])}.")
    return [*said, result["note"]]


def write_report(
    folder: Path,
    result: Mapping[str, Any],
    trials: Sequence[StudyTrial],
    space: Space,
    compared: Comparison | None,
) -> None:
    """Write trials.json, study.md and report.html, and comparison.json of the best trials.

    Args:
        folder: of the study.
        result: of it, with the importance of fields.
        trials: in order.
        space: that was searched.
        compared: the best trials, row by row; None where that cannot be.
    """
    metric, higher = result["metric"], result["higher_is_better"]
    if compared is not None:
        write_json(folder / "comparison.json", compared.plain())
    write_json(folder / "trials.json", [one.plain() for one in trials])
    rows = rows_of(trials, metric, higher)
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in (HEADS, *cells)]
    said = sentences(result)
    write_text(
        folder / "study.md", "\n\n".join(said) + "\n\n" + "\n".join([lines[0], "|---" * 7 + "|", *lines[1:]]) + "\n"
    )
    more = f"<p class=soft>{len(rows) - _MOST} more in trials.json</p>" if len(rows) > _MOST else ""
    head = f"<h1>Search of {safe(', '.join(space.nodes))}</h1>" + "".join(f"<p>{safe(one)}</p>" for one in said)
    body = [
        head,
        section("Trials, the best first", texts(HEADS, rows[:_MOST]) + more),
        *_pictures(result, trials, space),
        *([section("The best trials", _ALONE)] if compared is None else of_trials(compared)),
    ]
    write_text(folder / "report.html", page("Search", body))


def _pictures(result: Mapping[str, Any], trials: Sequence[StudyTrial], space: Space) -> list[str]:
    metric, higher = result["metric"], result["higher_is_better"]
    scale, unit = scale_of(metric)
    scored = [one for one in trials if one.outcome.value is not None and one.same_as is None]
    label = f"validation {metric.removeprefix('validation ')}{unit}"
    values = [scale * (one.outcome.value or 0.0) for one in scored]
    states = [one.outcome.state for one in scored]
    time = list(zip([one.ended for one in scored], values, states, strict=True))
    found = result["importance"]
    few = f"<p class=soft>It takes at least {_ENOUGH} complete trials with different scores, and a field of all.</p>"
    heads, lines = _coordinates(scored, values, space)
    return [
        section("Best so far against time", plots.best_so_far(time, label, higher)),
        section("What mattered", plots.importances(found) + _fanova() if found else few),
        section("Settings of all trials", plots.parallel_coordinates(heads, lines, label, higher) + _BROKEN),
        section("Score against cost", "".join(_against(cost, trials, scored, values, higher, label) for cost in _AXES)),
    ]


def _against(
    cost: Literal["seconds", "trainable"],
    trials: Sequence[StudyTrial],
    scored: Sequence[StudyTrial],
    values: Sequence[float],
    higher: bool,
    label: str,
) -> str:
    points = [
        (float(getattr(one.outcome, cost)), value, one.outcome.state) for one, value in zip(scored, values, strict=True)
    ]
    at = {one.number: place for place, one in enumerate(scored)}
    places = [at[number] for number in front(trials, higher, cost)]
    return plots.score_against_cost(points, places, [f"trial {one.number}" for one in scored], _AXES[cost], label)


def _fanova() -> str:
    return (
        "<p class=soft>fANOVA (Hutter et al. 2014): a random forest's share of the variance, of fields that all trials "
        "have. With few trials it is a hint, not a proof.</p>"
    )


def _coordinates(
    scored: Sequence[StudyTrial], values: Sequence[float], space: Space
) -> tuple[list[tuple[str, list[tuple[float, str]]]], list[tuple[list[float], float]]]:
    nodes = space.parameters()
    heads = [(name, _ticks(node)) for name, node in nodes.items()]
    lines = [
        ([_place(node, one.parameters.get(name)) for name, node in nodes.items()], value)
        for one, value in zip(scored, values, strict=True)
    ]
    return heads, lines


def _place(node: Range | Choices, value: Any) -> float:
    """Return where a value stands on its axis, from 0 to 1."""
    if value is None:
        return float("nan")
    if isinstance(node, Choices):
        return list(node.options).index(value) / max(1, len(node.options) - 1)
    low, high, at = np.log((node.low, node.high, value)) if node.log else (node.low, node.high, value)
    return float((at - low) / (high - low))


def _ticks(node: Range | Choices) -> list[tuple[float, str]]:
    if isinstance(node, Choices):
        return [(_place(node, label), label) for label in node.options]
    return [(0.0, f"{node.low:g}"), (1.0, f"{node.high:g}")]
