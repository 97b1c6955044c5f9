"""A calibration for people: reliability before and after, and what a threshold leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.evaluation.calibration import precision_curve
from tunesmith.evaluation.metrics.base import worded
from tunesmith.evaluation.page import page, safe, section, table
from tunesmith.evaluation.plots import canvas, drawn
from tunesmith.evaluation.predictions import Predictions

_INK, _GRID, _BLUE, _ORANGE = "#1f2933", "#d9e2ec", "#2563eb", "#ea7317"
_FEW = 100  # rows below which a temperature is remarked on


def _share(score: Mapping[str, float]) -> str:
    return worded("accuracy", score["value"], score["low"], score["high"])


def sentences(found: Mapping[str, Any]) -> list[str]:
    """Say what was chosen and what it does.

    Args:
        found: by `calibrate`.
    Returns:
        Sentences.
    """
    effect = "less" if found["temperature"] > 1 else "more"
    said = [
        f"Temperature {found['temperature']:.3f}, chosen on {found['fitted_rows']:,} rows of {found['fitted_on']}: the "
        f"probabilities become {effect} sure, the answers stay the same."
    ]
    if found["fitted_rows"] < _FEW:
        said.append(f"{found['fitted_rows']} rows are few to choose on; --data names more.")
    if found["fitted_on"] == "validation":
        said.append("Validation rows also chose the best epoch, so a model may look a little better there than it is.")
    if found["threshold"]:
        said += _threshold_sentences(found)
    elif any(one is not None for one in found["wanted"].values()):
        said.append("All rows are answered: what is wanted takes no threshold.")
    said += _missed(found)
    said += _effect(found["splits"].get("test"))
    if "test" not in found["splits"]:
        said.append("The run has no test rows: the figures are of the rows that chose, and too good.")
    return said


def _effect(test: Mapping[str, Any] | None) -> list[str]:
    """Say whether the temperature helped on rows that did not choose it."""
    if test is None:
        return []
    gain = next(one for one in test["gain"] if one["metric"] == "log-loss")
    ends = f"log-loss better by {gain['value']:.3f} ({gain['low']:.3f} to {gain['high']:.3f})"
    if gain["low"] > 0:
        return [f"On test that helps: {ends}."]
    return [f"On test it does not measurably help: {ends}; take it back where nothing else speaks for it."]


def _threshold_sentences(found: Mapping[str, Any]) -> list[str]:
    said = [f"Below a probability of {found['threshold']:.3f} there is no answer."]
    for name, one in found["splits"].items():
        kept = one["answered"]
        said.append(
            f"On {name} ({one['rows']:,} rows) it answers {_share(kept['coverage'])} and is right on "
            f"{_share(kept['precision'])} of those; on all rows it would be right on "
            f"{_share(one['all_answered']['precision'])}."
        )
    return said


def _missed(found: Mapping[str, Any]) -> list[str]:
    """Say where the wanted precision may be missed."""
    wanted, low = found["wanted"]["precision"], found["splits"][found["fitted_on"]]["answered"]["precision"]["low"]
    if wanted is None or low >= wanted:
        return []
    return [
        f"The wanted precision of {100 * wanted:g} % may be missed on new rows: the interval on the rows that "
        f"chose the threshold reaches down to {100 * low:.1f} %."
    ]


def score_rows(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Word the scores before and after as a table.

    Args:
        found: by `calibrate`.
    Returns:
        Heads and rows.
    """
    rows = []
    for split, one in found["splits"].items():
        for gain in one["gain"]:
            name = gain["metric"]
            before, after = (worded(name, *(one[side][name][key] for key in ("value", "low", "high"))) for side in
                             ("before", "after"))  # fmt: skip
            rows.append([f"{name}, {split}", before, after, f"{gain['p_value']:.3f}"])
    return ["lower is better", "before", "after", "p of the difference"], rows


def render_calibration(found: Mapping[str, Any], split: str, after: Predictions) -> str:
    """Write the page.

    Args:
        found: by `calibrate`.
        split: that is drawn.
        after: calibrated predictions on it.
    Returns:
        HTML without any outside reference.
    """
    heads, rows = score_rows(found)
    lines = [f"<tr><td>{safe(row[0])}</td>{''.join(f'<td class=n>{safe(cell)}</td>' for cell in row[1:])}</tr>"
             for row in rows]  # fmt: skip
    said = "".join(f"<p>{safe(one)}</p>" for one in sentences(found))
    parts = found["splits"][split]["reliability"]
    note = (
        "<p class=soft>A point is one of 15 bins of confidence, its size the number of rows, with Wilson's interval; "
        "on the dotted line confidence is accuracy. The calibration error of few rows, and more so of resampled ones, "
        "is above zero even where all is well.</p>"
    )
    return page(
        "Calibration",
        [
            f"<h1>Calibration</h1>{said}",
            section("Scores, with intervals", table(heads, lines)),
            section(f"Reliability on {split}", _reliability(parts["before"], parts["after"]) + note),
            section(f"Precision against coverage on {split}", _precision(after, found, split)),
        ],
    )


def _reliability(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> str:
    figure, panels = canvas(9.2, 4.3, 2)
    for axes, title, bins, colour in zip(panels, ("before", "after"), (before, after), (_ORANGE, _BLUE), strict=True):
        axes.plot([0, 100], [0, 100], ":", color=_INK, linewidth=1)
        most = max(one["rows"] for one in bins)
        for one in bins:
            at, score = 100 * one["confidence"], one["accuracy"]
            axes.plot([at, at], [100 * score["low"], 100 * score["high"]], color=colour, linewidth=1.3, alpha=0.7)
            size = 4 + 9 * (one["rows"] / most) ** 0.5
            axes.plot(at, 100 * score["value"], "o", color=colour, markersize=size, mec="white", mew=0.6)
        axes.set_title(title, fontsize=11, color=_INK)
        axes.set_xlim(0, 103)
        axes.set_ylim(0, 103)
        axes.set_xlabel("confidence, %")
        axes.grid(color=_GRID, linewidth=0.6)
    panels[0].set_ylabel("accuracy, %")
    return drawn(figure)


def _precision(after: Predictions, found: Mapping[str, Any], split: str) -> str:
    coverage, precision = precision_curve(after)
    figure, (axes,) = canvas(7.2, 3.2)
    axes.step(
        [100 * one for one in coverage], [100 * one for one in precision], color=_BLUE, linewidth=1.6, where="post"
    )
    if found["threshold"]:
        kept = found["splits"][split]["answered"]
        at = 100 * kept["coverage"]["value"]
        axes.plot([at, at], [100 * kept["precision"]["low"], 100 * kept["precision"]["high"]], color=_ORANGE)
        axes.plot(at, 100 * kept["precision"]["value"], "o", color=_ORANGE, markersize=8,
                  label=f"threshold {found['threshold']:.3f}")  # fmt: skip
    wanted = found["wanted"]["precision"]
    if wanted is not None:
        axes.axhline(100 * wanted, color=_INK, linewidth=0.9, linestyle=":", label=f"wanted: {100 * wanted:g} %")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    axes.set_xlim(0, 102)
    axes.set_ylim(top=101)
    axes.set_xlabel("rows answered, the surest first, %")
    axes.set_ylabel("of them right, %")
    axes.grid(color=_GRID, linewidth=0.6)
    return drawn(figure)
