"""The table and the picture of Omniglot, for report.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common

SHAPES = ("5-way 1-shot", "5-way 5-shot", "20-way 1-shot", "20-way 5-shot")

# In percent, by shape, as the papers print them: trained on 1,200 of Omniglot's 1,623 characters and their turns.
PUBLISHED = {
    "matching, Vinyals et al. 2016": (98.1, 98.9, 93.8, 98.5),
    "prototypical, Snell et al. 2017": (98.8, 99.7, 96.0, 98.9),
    "MAML, Finn et al. 2017": (98.7, 99.9, 95.8, 98.9),
}


def omniglot(folder: Path, draw: Callable[[Any, Path], None]) -> list[str]:
    """Word what learners of episodes reached, beside published figures, and draw it."""
    path = common.RESULTS / "omniglot.json"
    if not path.exists():
        return []
    cases = json.loads(path.read_text())
    one = next(iter(cases.values()))
    lines = ["", "## Omniglot: few-shot learning of held-out alphabets", "", "`python benchmarks/omniglot.py`", "",
             "![accuracy](omniglot.svg)", "",
             f"Conv-4 made new, learned from {one['data']['train']['classes']} classes (six alphabets, turned), scored "
             f"on {one['episodes']} episodes of {one['data']['test']['classes']} classes of two held-out alphabets; "
             "95 % intervals over episodes. Published figures learn from 4,800 classes, most for far longer, and their "
             "held-out characters come from known alphabets too, so they are no like-for-like comparison. One-shot "
             "runs: error over the 20 published runs (20 ways within a new alphabet).", "",
             "| learner | episodes, minutes of training | " + " | ".join(SHAPES) + " | one-shot runs, error |",
             "|---" * (len(SHAPES) + 3) + "|"]  # fmt: skip
    for name, found in cases.items():
        cells = [_cell(found["metrics"].get(shape)) for shape in SHAPES]
        cost = f"{found['episodes_trained']}, {found['training_seconds'] / 60:.1f}"
        lines.append(f"| {name} | {cost} | {' | '.join([*cells, _cell(found['one_shot_runs']['error'])])} |")
    cells = [_cell(one["before"].get(shape)) for shape in SHAPES]
    lines.append(f"| class means on the random encoder | 0 | {' | '.join(cells)} | |")
    lines += [f"| {name} | | {' | '.join(f'{value}' for value in own)} | |" for name, own in PUBLISHED.items()]
    lines += ["| people; BPL (Lake et al. 2015) | | | | | | 4.5; 3.3 |"]
    draw(_picture(cases), folder / "omniglot.svg")
    return lines


def _cell(score: dict[str, float] | None) -> str:
    if score is None:
        return "not run"
    return f"{100 * score['value']:.1f} ({100 * score['low']:.1f} to {100 * score['high']:.1f})"


def _picture(cases: dict[str, Any]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5))
    axes = figure.subplots()
    for place, (name, found) in enumerate(cases.items()):
        points = [(number, found["metrics"][shape]) for number, shape in enumerate(SHAPES) if shape in found["metrics"]]
        at = [number + 0.1 * (place - len(cases) / 2) for number, _ in points]
        values = [100 * score["value"] for _, score in points]
        ends = [[100 * (score["value"] - score["low"]) for _, score in points],
                [100 * (score["high"] - score["value"]) for _, score in points]]  # fmt: skip
        axes.errorbar(at, values, yerr=ends, fmt="o", markersize=4, label=name)
    axes.set_xticks(range(len(SHAPES)), SHAPES)
    axes.set_ylabel("accuracy (%)")
    axes.legend(fontsize=8)
    return figure
