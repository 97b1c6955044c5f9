"""Pictures of several runs beside each other; a run keeps its number and its colour in all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tunesmith.evaluation.plots import canvas, drawn, plain_name

INK, GRID, SOFT = "#1f2933", "#d9e2ec", "#9fb3c8"
_COLOURS = (
    "#2563eb",
    "#ea7317",
    "#0f9d76",
    "#b5179e",
    "#7f5539",
    "#0891b2",
    "#e11d48",
    "#6b7280",
    "#84a00b",
    "#111827",
)
_MARKS = "osD^vP*Xph"

Triple = tuple[float, float, float]


def colour(place: int) -> str:
    """Return a run's colour.

    Args:
        place: of the run in the table.
    Returns:
        For matplotlib.
    """
    return _COLOURS[place % len(_COLOURS)]


def _rows(axes: Any, names: Sequence[str]) -> None:
    """Label horizontal lines, one per run, the first on top."""
    axes.set_yticks(range(len(names)), [f"{at + 1} {plain_name(name[:40])}" for at, name in enumerate(names)])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="x", color=GRID, linewidth=0.6)


def intervals(names: Sequence[str], scores: Sequence[Triple], groups: Sequence[str], label: str) -> str:
    """Draw a score with its interval per run, and the letters of its groups.

    Args:
        names: of the runs.
        scores: value, low and high of each.
        groups: letters of each.
        label: of the axis.
    Returns:
        An SVG element.
    """
    figure, (axes,) = canvas(7.6, 0.9 + 0.36 * len(names))
    for place, (value, low, high) in enumerate(scores):
        axes.plot([low, high], [place, place], color=colour(place), linewidth=2.2, solid_capstyle="butt")
        axes.plot(value, place, "o", color=colour(place), markersize=7)
        axes.annotate(
            groups[place], (1, place), xycoords=("axes fraction", "data"), xytext=(8, 0), textcoords="offset points",
            va="center", fontsize=10, color=INK, family="monospace",
        )  # fmt: skip
    _rows(axes, names)
    axes.set_xlabel(label)
    return drawn(figure)


def before_and_after(
    names: Sequence[str], after: Sequence[Triple], before: Sequence[Mapping[str, float]], label: str
) -> str:
    """Draw what each run scored beside its baselines.

    Args:
        names: of the runs.
        after: value, low and high of each.
        before: of each run, value by baseline.
        label: of the axis.
    Returns:
        An SVG element.
    """
    figure, (axes,) = canvas(7.6, 1.2 + 0.36 * len(names))
    kinds = list(dict.fromkeys(kind for one in before for kind in one))
    for place, ((value, low, high), one) in enumerate(zip(after, before, strict=True)):
        axes.plot([*one.values(), value], [place] * (len(one) + 1), color=SOFT, linewidth=1.2, zorder=1)
        axes.plot([low, high], [place, place], color=colour(place), linewidth=2.2, zorder=2)
    for number, kind in enumerate(kinds):
        points = [(one[kind], place) for place, one in enumerate(before) if kind in one]
        axes.plot(*zip(*points, strict=True), _MARKS[1 + number % 8], color=SOFT, mec=INK, mew=0.8, label=kind, ls="")
    axes.plot([], [], "o", color=INK, label="tuned")
    for place, (value, _, _) in enumerate(after):
        axes.plot(value, place, "o", color=colour(place), markersize=7, zorder=3)
    _rows(axes, names)
    axes.set_xlabel(label)
    axes.legend(frameon=False, fontsize=9, ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1), handletextpad=0.3)
    return drawn(figure)


def against_costs(
    scores: Sequence[Triple], costs: Sequence[tuple[str, Sequence[float], Sequence[int]]], label: str
) -> str:
    """Draw scores against what they cost, one panel per cost, with the front that nothing cheaper reaches.

    Args:
        scores: value, low and high of each run.
        costs: of each panel its axis, a number per run, and the runs of the front, the cheapest first.
        label: of the score.
    Returns:
        An SVG element.
    """
    figure, panels = canvas(9.2, 3.6, len(costs))
    for axes, (name, values, front) in zip(panels, costs, strict=True):
        axes.step([values[at] for at in front], [scores[at][0] for at in front], where="post", color=INK,
                  linewidth=1.1, linestyle=":", label="front", zorder=1)  # fmt: skip
        for place, (value, low, high) in enumerate(scores):
            axes.plot([values[place]] * 2, [low, high], color=colour(place), linewidth=1.4, alpha=0.6, zorder=2)
            axes.plot(values[place], value, "o", color=colour(place), markersize=11, zorder=3 + len(scores) - place)
            axes.text(values[place], value, str(place + 1), color="white", fontsize=8, ha="center", va="center",
                      zorder=3 + len(scores) - place)  # fmt: skip
        if min(values) > 0 and max(values) > 20 * min(values):
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
        else:
            axes.set_xlim(left=0, right=1.08 * max(values) or 1)
        axes.set_xlabel(name)
        axes.grid(color=GRID, linewidth=0.6)
    panels[0].set_ylabel(label)
    return drawn(figure)


def epochs(names: Sequence[str], curves: Sequence[Sequence[tuple[float, float]]], label: str) -> str:
    """Draw a score per epoch of several runs.

    Args:
        names: of the runs.
        curves: of each run its epochs and scores.
        label: of the score.
    Returns:
        An SVG element.
    """
    figure, (axes,) = canvas(7.6, 3.4)
    for place, curve in enumerate(curves):
        if curve:
            mark = _MARKS[place % len(_MARKS)]
            axes.plot(*zip(*curve, strict=True), f"{mark}-", color=colour(place), markersize=5, linewidth=1.5,
                      label=f"{place + 1} {plain_name(names[place][:30])}")  # fmt: skip
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return drawn(figure)


def confusion_changes(
    pairs: Sequence[tuple[str, str, int, int]], names: tuple[str, str], places: tuple[int, int]
) -> str:
    """Draw how many rows two runs confuse, for pairs of labels.

    Args:
        pairs: true label, predicted label, rows of the first run and of the second.
        names: of the two runs.
        places: of the two runs, for their colours.
    Returns:
        An SVG element.
    """
    figure, (axes,) = canvas(7.6, 0.9 + 0.36 * len(pairs))
    for line, (_, _, first, second) in enumerate(pairs):
        axes.plot([first, second], [line, line], color=SOFT, linewidth=2, zorder=1)
    for number, place in enumerate(places):
        counts = [pair[2 + number] for pair in pairs]
        axes.plot(counts, np.arange(len(pairs)) + (0.12 if number else -0.12), "o", color=colour(place), markersize=7,
                  label=f"{place + 1} {plain_name(names[number])}")  # fmt: skip
    said = [plain_name(f"{true[:30]} taken for {predicted[:30]}") for true, predicted, *_ in pairs]
    axes.set_yticks(range(len(pairs)), said, fontsize=8)
    axes.set_ylim(len(pairs) - 0.4, -0.6)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlim(left=-0.2)
    axes.set_xlabel("rows")
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.legend(frameon=False, fontsize=9, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    return drawn(figure)
