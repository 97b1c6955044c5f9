"""Tables of what was counted or predicted: operations, kept bytes, peak memory, for report.py."""

from __future__ import annotations

import json
from typing import Any

import common


def where(machine: dict[str, Any]) -> str:
    """Word the machine that numbers were measured on."""
    wide = f" ({machine['instructions']})" if "instructions" in machine else ""
    return f"{machine['threads']} threads of {machine['processor']}{wide}, torch {machine['torch']}"


def operations_table() -> list[str]:
    """Word how many operations every side executed, as a multiple of the least."""
    path = common.RESULTS / "operations.json"
    if not path.exists():
        return []
    lines = ["", "## Executed operations over the least that an exact step needs", "",
             "`python benchmarks/operations.py`", ""]  # fmt: skip
    lines += ["| case | least (10^9) | side | executed over least |", "|---|---|---|---|"]
    for case, found in json.loads(path.read_text()).items():
        for side, count in found["sides"].items():
            lines.append(f"| {case} | {found['least'] / 1e9:,.1f} | {side} | {count / found['least']:.3f} |")
    return lines


def memory_table() -> list[str]:
    """Word what the planner predicted and what training took."""
    path = common.RESULTS / "memory.json"
    if not path.exists():
        return []
    found = json.loads(path.read_text())
    lines = ["", "## Predicted and measured peak memory", "",
             f"`python benchmarks/memory.py`. One run each, {where(found['machine'])}.", "",
             "| run | limit (MB) | predicted (MB) | measured (MB) | error |", "|---|---|---|---|---|"]  # fmt: skip
    for case, one in found.items():
        if case == "machine":
            continue
        limit = "" if one["limit_bytes"] is None else f"{one['limit_bytes'] / 1e6:,.0f}"
        lines.append(f"| {case} | {limit} | {one['predicted_bytes'] / 1e6:,.0f} | {one['measured_bytes'] / 1e6:,.0f} | "
                     f"{100 * one['error']:+.1f} % |")  # fmt: skip
    return lines


def kept_table() -> list[str]:
    """Word what a forward pass keeps for its backward pass, per useful token."""
    lines: list[str] = []
    for case, found in common.kept("kept_bytes").items():
        lines += ["", "## Bytes that a forward pass keeps, per useful token", "",
                  f"`python benchmarks/kept_bytes.py`. {case}, LoRA of rank 8, float32. Counted, each storage once; "
                  f"the closed form of the layers is {found['closed_form']:,} bytes.", "",
                  "| side | bytes per token | over the closed form |", "|---|---|---|"]  # fmt: skip
        for side, one in found["sides"].items():
            kept = one["bytes_per_token"]
            lines.append(f"| {side} | {kept:,.0f} | {kept / found['closed_form']:.3f} |")
        lines += ["", "With checkpointing PEFT keeps less and runs every block twice (its logits are most of what it "
                  "keeps); ours does that only where a step would not fit (`training.memory_limit`)."]  # fmt: skip
    return lines


def precision_table() -> list[str]:
    """Word what fewer bits cost in accuracy."""
    cases = common.kept("precision_cost")
    if not cases:
        return []
    lines = ["", "## What less precision costs", "",
             "`python benchmarks/precision_cost.py`. BANKING77, ten rows per label, LoRA at the defaults, 3,080 test "
             "rows; the difference from float32 is paired, rows and seeds drawn anew (95 %). Memory is the process's "
             f"highest; {where(cases['float32']['machine'])}.", "",
             "| frozen weights | seeds | accuracy | difference (points) | memory (MB) |",
             "|---|---|---|---|---|"]  # fmt: skip
    for way, one in cases.items():
        runs = list(one["runs"].values())[: one["seeds"]]
        accuracy = 100 * sum(run["accuracy"] for run in runs) / len(runs)
        peak = max(run["peak_bytes"] for run in runs) / 1e6
        change = " to ".join(f"{100 * one['change'][end]:+.2f}" for end in ("low", "high"))
        value = "" if way == "float32" else f"{100 * one['change']['value']:+.2f} ({change})"
        lines.append(f"| {way} | {len(runs)} | {accuracy:.2f} % | {value} | {peak:,.0f} |")
    return lines
