"""Tables and pictures of ways to train on the same rows, for report.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common

# By file: title, command, what is measured, what is to be known, and which case of the file.
FILES = {
    "label_noise": (
        "Flipped labels: robust losses and cleaning", "python benchmarks/label_noise.py --no-probe", "test accuracy",
        "A fifth of BANKING77's training labels flipped; the task's head on MiniLM's frozen features, 3 seeds.", "head",
    ),
    "imbalance": (
        "Uneven classes: ways to balance", "python benchmarks/imbalance.py", "macro-F1",
        "BANKING77 made 50:1 uneven; the task's head on MiniLM's frozen features, 3 seeds.", "head",
    ),
}  # fmt: skip


def ways(folder: Path, draw: Callable[[Any, Path], None]) -> list[str]:
    """Word how well each way did, with intervals over seeds, and draw it."""
    lines: list[str] = []
    for name, (title, command, metric, what, key) in FILES.items():
        path = common.RESULTS / f"{name}.json"
        cases = json.loads(path.read_text()) if path.exists() else {}
        case = next((found for label, found in cases.items() if key in label), None)
        if case is None:
            continue
        table = case.get("table", case)
        lines += ["", f"## {title}", "", f"`{command}`", "", f"![{metric}]({name}.svg)", "",
                  f"{what} Mean and 95 % interval over seeds; behind it the interval of one seed by its test rows.", "",
                  f"| way | {metric}, % | one seed |", "|---|---|---|"]  # fmt: skip
        for way, one in table.items():
            own = " to ".join(f"{100 * end:.1f}" for end in one["of one seed"])
            lines.append(
                f"| {way} | {100 * one['mean']:.2f} ({100 * one['low']:.2f} to {100 * one['high']:.2f}) | {own} |"
            )
        draw(_picture(table, metric), folder / f"{name}.svg")
    return lines


def _picture(table: dict[str, Any], metric: str) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.32 * len(table) + 1))
    axes = figure.subplots()
    for place, one in enumerate(table.values()):
        ends = [[100 * (one["mean"] - one["low"])], [100 * (one["high"] - one["mean"])]]
        axes.errorbar([100 * one["mean"]], [place], xerr=ends, fmt="o", markersize=5, color="#2a6f97")
    axes.set_yticks(range(len(table)), list(table))
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel(f"{metric} (%), mean and 95 % over seeds")
    return figure
