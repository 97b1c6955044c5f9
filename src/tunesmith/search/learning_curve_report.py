"""The report of a learning curve: what it says in sentences, a picture, a table; HTML, Markdown, JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.core.files import finite, write_json, write_text
from tunesmith.evaluation import plots
from tunesmith.evaluation.learning_curve import Growth
from tunesmith.evaluation.metrics.base import number, scale_of, worded
from tunesmith.evaluation.page import page, safe, section, texts

HEADS = ("training rows", "mean score on validation", "score of each draw")
_DRAWN = 60  # points of the line


def _worded(metric: str, score: Mapping[str, float]) -> str:
    """Word a score with its band."""
    name = "log-loss" if metric == "validation loss" else metric
    return worded(name, score["value"], score["low"], score["high"])


def _span(metric: str, gain: Mapping[str, float]) -> str:
    """Word a gain with its band."""
    times, unit = scale_of(metric)
    form, name = ("+.1f", " points") if unit else ("+.3f", "")
    main, low, high = (number(times * gain[key], form) for key in ("value", "low", "high"))
    return f"{main}{name} ({low} to {high})"


def sentences(result: Mapping[str, Any]) -> list[str]:
    """Say what a learning curve found.

    Args:
        result: of it.
    Returns:
        Sentences.
    """
    metric, ahead, last = result["metric"], result["ahead"], result["points"][-1]
    said = [
        f"{metric} on validation with all {result['rows']:,} training rows: {_worded(metric, last)}, mean of "
        f"{result['repeats']} seeds."
    ]
    if result["clear"]:
        said.append(
            f"Twice the data ({ahead['rows']:,} rows) would give about {_worded(metric, ahead)}: "
            f"{_span(metric, result['gain'])} over what the law gives for the present rows."
        )
    else:
        said.append(
            f"What twice the data ({ahead['rows']:,} rows) would give cannot be said: {_worded(metric, ahead)} is "
            f"{_span(metric, result['gain'])} over the law's value now, which reaches both sides of zero. The "
            "curve is flat, or too noisy: give more repeats (--repeats) or more validation rows."
        )
    return [*said, *_checked(result)]


def _checked(result: Mapping[str, Any]) -> list[str]:
    """Say whether the law would have foretold the last point."""
    metric, check = result["metric"], result["check"]
    if check is None:
        return ["Whether the law holds was not checked: that takes 4 sizes."]
    before = f"The law through the points up to {check['from_rows']:,} rows foretells {_worded(metric, check)} for all"
    if result["holds"]:
        return [f"{before}, and that is what was measured, within the intervals."]
    return [
        f"{before}, and {_worded(metric, result['points'][-1])} was measured: the curve does not follow the law, so do "
        "not go by what it says about more rows."
    ]


def rows_of(result: Mapping[str, Any]) -> list[list[str]]:
    """Word the sizes as rows of a table.

    Args:
        result: of the curve.
    Returns:
        The smallest first.
    """
    metric = result["metric"]
    times, unit = scale_of(metric)
    form = ".1f" if unit else ".3f"
    return [
        [f"{one['rows']:,}", _worded(metric, one), ", ".join(number(times * score, form) for score in one["scores"])]
        for one in result["points"]
    ]


def write_curve_report(folder: Path, result: Mapping[str, Any], growth: Growth, confidence: float) -> None:
    """Write learning-curve.json, learning-curve.md and report.html.

    Args:
        folder: of the curve.
        result: of it.
        growth: the same with its law.
        confidence: of the band. [fraction]
    """
    metric, said, rows = result["metric"], sentences(result), rows_of(result)
    write_json(folder / "learning-curve.json", finite(dict(result)))
    lines = ["| " + " | ".join(row) + " |" for row in (HEADS, *rows)]
    written = "\n".join([lines[0], "|---" * len(HEADS) + "|", *lines[1:]])
    write_text(folder / "learning-curve.md", "\n\n".join([*said, written]) + "\n")
    times, unit = scale_of(metric)
    at = np.geomspace(growth.rows[0], growth.more, _DRAWN)
    picture = plots.score_against_rows(
        [(one["rows"], *(times * one[key] for key in ("value", "low", "high"))) for one in result["points"]],
        (at, times * growth.band(at.tolist(), confidence)),
        f"validation {metric.removeprefix('validation ')}{unit}",
    )
    law = result["law"]
    formula = (
        f"<p class=soft>score = {law['limit']:.4g} - {law['scale']:.4g} rows<sup>-{law['exponent']:.3g}</sup>, least "
        "squares through the means. Band: bootstrap over draws and validation rows together; what another form of the "
        "law would say is not in it. Validation chose the epoch of every training, so scores flatter a little.</p>"
    )
    body = [
        "<h1>Learning curve</h1>" + "".join(f"<p>{safe(one)}</p>" for one in said),
        section("Score against training rows", picture + formula),
        section("Sizes", texts(HEADS, rows)),
    ]
    write_text(folder / "report.html", page("Learning curve", body))
