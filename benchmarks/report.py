"""Make the tables and pictures of docs/benchmarks from the results as JSON.

python benchmarks/report.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import common

FOLDER = common.RESULTS.parent.parent / "docs" / "benchmarks"
TITLES = {
    "encoder_classification": ("Classification of BANKING77 with MiniLM, LoRA on every linear map of the blocks",
                               "python benchmarks/encoder_classification.py speed"),
    "instruction_tuning": ("Instruction tuning on gsm8k, a Llama of 30 million random numbers, LoRA",
                           "python benchmarks/instruction_tuning.py"),
    "frozen_depth": ("Deltas in the upper half, with what the frozen half gives kept between epochs",
                     "python benchmarks/frozen_depth.py"),
}  # fmt: skip


def table(found: dict[str, Any]) -> list[str]:
    """Word a comparison: medians, ranges, and how each side stands to the last one."""
    keys, middle, ranges = found["keys"], found["medians"], found["ranges"]
    speed, base = next(iter(keys)), list(middle)[-1]
    lines = ["| side | " + " | ".join(f"{key.replace('_', ' ')} ({unit})" for key, unit in keys.items())
             + f" | speed to {base} | memory to {base} |", "|---" * (len(keys) + 3) + "|"]  # fmt: skip
    for side, own in middle.items():
        cells = [cell(own[key], ranges[side][key], unit) for key, unit in keys.items()]
        ratios = [f"{own[speed] / middle[base][speed]:.2f}", f"{own['peak_bytes'] / middle[base]['peak_bytes']:.2f}"]
        lines.append(f"| {side} | {' | '.join([*cells, *ratios])} |")
    return lines


def cell(value: float, ends: list[float], unit: str) -> str:
    """Word a median with its range."""
    low, high = (common.shortened(end, unit) for end in ends)
    return f"{common.shortened(value, unit)} ({low} to {high})"


def facts(found: dict[str, Any]) -> str:
    """Word where and how often it was measured."""
    machine = found["machine"]
    rounds = len(next(iter(found["runs"].values())))
    return f"{rounds} rounds in turn, {machine['threads']} threads of {machine['processor']}, torch {machine['torch']}."


def picture(cases: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw every side's speed as a multiple of the last one's, with the range of its runs."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.5 + 0.35 * sum(len(found["medians"]) + 1 for found in cases.values())))
    axes, names, place = figure.subplots(), list[str](), 0.0
    ticks = []
    for case, found in cases.items():
        speed, base = next(iter(found["keys"])), list(found["medians"])[-1]
        one = found["medians"][base][speed]
        for side, own in found["medians"].items():
            low, high = found["ranges"][side][speed]
            value = own[speed] / one
            axes.barh(place, value, color="#4878a8" if side != base else "#b0b0b0",
                      xerr=[[value - low / one], [high / one - value]], ecolor="#303030", capsize=2)  # fmt: skip
            ticks.append(place)
            names.append(f"{side} · {case}")
            place += 1
        place += 0.6
    axes.set_yticks(ticks, names, fontsize=7)
    axes.invert_yaxis()
    axes.axvline(1.0, color="#303030", linewidth=0.8)
    axes.set_xlabel("speed as a multiple of the grey side's")
    figure.tight_layout()
    with matplotlib.rc_context({"svg.hashsalt": "tunesmith", "svg.fonttype": "none"}):
        FigureCanvasSVG(figure).print_svg(path, metadata={"Date": None})


def memory_table() -> list[str]:
    """Word what the planner predicted and what training took."""
    path = common.RESULTS / "memory.json"
    if not path.exists():
        return []
    found = json.loads(path.read_text())
    lines = ["", "## Predicted and measured peak memory", "", "`python benchmarks/memory.py`", "",
             "| run | limit (MB) | predicted (MB) | measured (MB) | error |", "|---|---|---|---|---|"]  # fmt: skip
    for case, one in found.items():
        if case == "machine":
            continue
        limit = "" if one["limit_bytes"] is None else f"{one['limit_bytes'] / 1e6:,.0f}"
        lines.append(f"| {case} | {limit} | {one['predicted_bytes'] / 1e6:,.0f} | {one['measured_bytes'] / 1e6:,.0f} | "
                     f"{100 * one['error']:+.1f} % |")  # fmt: skip
    return lines


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    lines = [
        "# Benchmarks", "",
        "Made by `python benchmarks/report.py` from `benchmarks/results`. Every side ran in turn with the others, in a",
        "process of its own; medians, and the lowest and highest in brackets. `make bench` runs all of it.",
    ]  # fmt: skip
    for name, (title, command) in TITLES.items():
        path = common.RESULTS / f"{name}.json"
        if not path.exists():
            continue
        cases = {case: found for case, found in json.loads(path.read_text()).items() if "keys" in found}
        lines += ["", f"## {title}", "", f"`{command}`", "", f"![speed]({name}.svg)"]
        for case, found in cases.items():
            lines += ["", f"**{case}.** {facts(found)}", "", *table(found)]
        picture(cases, FOLDER / f"{name}.svg")
    (FOLDER / "README.md").write_text("\n".join([*lines, *memory_table()]) + "\n", encoding="utf-8")
    print(f"written: {FOLDER / 'README.md'}")


if __name__ == "__main__":
    main()
