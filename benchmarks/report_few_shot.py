"""The table and picture of few-shot intents, for report.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
from few_shot_intent import PUBLISHED, SETS, SHOTS

CASES = [f"{dataset} {shots}-shot" for dataset in SETS for shots in SHOTS]
RECIPES = ("few-shot", "few-shot-best", "few-shot-unlabelled")
WHAT = (
    "Accuracy on test in per cent, fixed splits. Ours: mean (standard deviation; number of runs), MiniLM of 22.7 "
    "million numbers, one general recipe, nothing chosen on test. The others are published; their models are about "
    "five times larger."
)


def few_shot_intents(folder: Path, draw: Callable[[Any, Path], None]) -> list[str]:
    """Word our accuracy on the fixed splits beside the published figures, and draw both."""
    found = common.kept("few_shot_intent")
    if not found:
        return []
    lines = ["", "## Few-shot intents", "", "`python benchmarks/few_shot_intent.py --recipe few-shot-best`", "",
             "![accuracy](few_shot_intent.svg)", "",
             WHAT, "",
             f"| | {' | '.join(CASES)} |", "|---" * (len(CASES) + 1) + "|"]  # fmt: skip
    for name, values in PUBLISHED.items():
        lines.append(f"| {name} | {' | '.join(f'{value:.2f}' for value in values)} |")
    for recipe in RECIPES:
        own = [found.get(f"{case}, {recipe}") for case in CASES]
        if any(own):
            lines.append(f"| `recipes/{recipe}.yaml` | {' | '.join(map(_cell, own))} |")
            lines.append(f"| seconds of a run, median | {' | '.join(map(_seconds, own))} |")
    draw(_picture(found), folder / "few_shot_intent.svg")
    return lines


def _cell(one: dict[str, Any] | None) -> str:
    if one is None:
        return "-"
    return f"{100 * one['mean']:.2f} ({100 * one['deviation']:.2f}; {len(one['runs'])})"


def _seconds(one: dict[str, Any] | None) -> str:
    return "-" if one is None else f"{one['seconds']:.0f} ({one['machine']['threads']} threads)"


def _picture(found: dict[str, Any]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2))
    axes = figure.subplots()
    lowest = 0.0  # where the next name may stand
    for name, values in sorted(PUBLISHED.items(), key=lambda item: item[1][-1]):
        axes.plot(range(len(CASES)), values, "o", color="#9fb3c8", markersize=5)
        height = max(values[-1], lowest)
        axes.annotate(name, (len(CASES) - 1, values[-1]), (len(CASES) - 0.8, height), fontsize=7, va="center",
                      arrowprops={"arrowstyle": "-", "color": "#9fb3c8", "lw": 0.6, "relpos": (0, 0.5)})  # fmt: skip
        lowest = height + 1.1
    for recipe, marker in zip(RECIPES, "s^D", strict=True):
        own = {place: found.get(f"{case}, {recipe}") for place, case in enumerate(CASES)}
        there = {place: 100 * one["mean"] for place, one in own.items() if one}
        if there:
            label = f"Tunesmith, {recipe}.yaml"
            axes.plot(list(there), list(there.values()), marker, color="#2a6f97", markersize=6, label=label)
    axes.set_xticks(range(len(CASES)), CASES, fontsize=8)
    axes.set_xlim(-0.4, len(CASES) + 0.2)
    axes.set_ylim(73, 99)
    axes.set_title("Few-shot intents, test rows", fontsize=9, loc="left")
    axes.set_ylabel("accuracy (%)")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    return figure
