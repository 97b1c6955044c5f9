"""The table of search strategies on closed-form functions, for report.py."""

from __future__ import annotations

import json

import common

_LEVEL = 0.05
_HOW = {
    "grid": "valley's best point is the middle of its ranges, which a grid of middles suits; its settings were chosen "
    "on functions whose best points are drawn",
    "population": "its trials go on from each other, so each function stands for something that is trained (the "
    "script's first lines); the figures are the gap that is left, and random search has as many trials as it has "
    "members, each as long as its chain: the same epochs",
}


def search_functions() -> list[str]:
    """Word which strategies beat random search, the losing ones too."""
    path = common.RESULTS / "search_functions.json"
    if not path.exists():
        return []
    rows = json.loads(path.read_text())
    lines = ["", "## Search strategies on closed-form functions", "",
             "`python benchmarks/search_functions.py`. Regret of the best complete trial at the median of seeds, the "
             "same budget in epochs for all; Wilcoxon's signed-rank test against random search on the same seeds, "
             "one-sided, all p-values corrected together (Holm).", "",
             "| function | strategy | trials | regret | of random | better seeds | p (Holm) | better than random | the "
             "same twice |", "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for one in sorted(rows, key=lambda row: (row["function"], row["median regret"])):
        better, same = ("yes" if so else "no" for so in (one["p (Holm)"] < _LEVEL, one["reproducible"]))
        lines.append(
            f"| {one['function']} | {one['strategy']} | {one['trials']} | {one['median regret']:.3g} | "
            f"{one['median regret of random']:.3g} | {one['better seeds']} of {one['seeds']} | {one['p (Holm)']:.2g} | "
            f"{better} | {same} |"
        )
    shown = {row["strategy"] for row in rows}
    missing = "" if "gaussian-process" in shown else "- gaussian-process: not measured yet, its fits take seconds."
    return [*lines, "", missing, *(f"- {name}: {why}." for name, why in _HOW.items() if name in shown)]
