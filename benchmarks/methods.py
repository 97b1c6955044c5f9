"""Every method: its score, trainable share, seconds and peak memory, ours and PEFT's where it has one.

    TUNESMITH_DATA=... TUNESMITH_MODELS=... python benchmarks/methods.py quality [--methods ...] [--tasks ...]
        [--seeds 0 1 2] [--epochs 4] [--steps 200] [--sides ours peft]
    ... python benchmarks/methods.py speed [--methods ...] [--tasks ...] [--rows 8 32] [--steps 12]
    ... python benchmarks/methods.py table            # markdown from what was measured

BANKING77 with ten rows per label (MiniLM, test accuracy) and language modelling of tinyshakespeare (stories260K,
held-out nats per token). `quality` chooses the better of three learning rates on validation rows of the first seed,
ours in one pass, PEFT's one after another; the other seeds take that rate. `speed` gives both sides the same fixed
steps in turn (A B A B ...) in one process; memory is that of a process per side. Each measurement is written to
benchmarks/results/methods.json at once: what stands there is not run again unless --again is given.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import common
from method_quality import classify_ours, classify_theirs, write_ours, write_theirs
from method_sides import METHODS, TASKS, speed_both, speed_ours, speed_theirs

PATH = common.RESULTS / "methods.json"
BASE = {"classification": 22_565_376, "language": 260_032}  # parameters of the frozen models, without a head
WORKERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "speed-ours": speed_ours,
    "speed-peft": speed_theirs,
    "speed-both": speed_both,
    "quality-classification-ours": classify_ours,
    "quality-classification-peft": classify_theirs,
    "quality-language-ours": write_ours,
    "quality-language-peft": write_theirs,
}
ABSENT = {("bitfit", "language"), ("head-only", "language")}  # no bias terms; no head


def load() -> dict[str, Any]:
    """Read what was measured so far."""
    found: dict[str, Any] = json.loads(PATH.read_text()) if PATH.exists() else {"quality": {}, "speed": {}}
    return found


def keep(kind: str, key: str, value: dict[str, Any], threads: int) -> None:
    """Add one measurement to the file."""
    found = load()
    found[kind][key] = value
    found["machine"] = common.machine(threads)
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(json.dumps(found, indent=1) + "\n")


def sides(name: str, wanted: list[str]) -> list[str]:
    """Return the sides that have a method."""
    return [side for side in wanted if side == "ours" or METHODS[name].peft]


def quality(given: argparse.Namespace) -> None:
    """Measure scores that are not there yet."""
    for seed, name, task in itertools.product(given.seeds, given.methods, given.tasks):
        for side in sides(name, given.sides):
            key = f"{name}/{task}/{side}/{seed}"
            if (name, task) in ABSENT or (key in load()["quality"] and not given.again):
                continue
            work = {"method": name, "task": task, "seed": seed, "epochs": given.epochs, "steps": given.steps}
            first = load()["quality"].get(f"{name}/{task}/{side}/{given.seeds[0]}")
            work["rates"] = METHODS[name].rates if seed == given.seeds[0] or first is None else [first["rate"]]
            found = common.child(__file__, {"kind": f"quality-{task}-{side}", **work}, given.threads)
            keep("quality", key, {**work, **found}, given.threads)
            print(f"{key}: {found['score']['value']:.4f} with rate {found['rate']:g}", flush=True)


def speed(given: argparse.Namespace) -> None:
    """Measure memory in a process per side, and time with both sides in one process, in turn."""
    for name, task, rows in itertools.product(given.methods, given.tasks, given.rows):
        key = f"{name}/{task}/{rows}"
        if (name, task) in ABSENT or (key in load()["speed"] and not given.again):
            continue
        work = {"method": name, "task": task, "rows": rows, "steps": given.steps}
        kinds = sides(name, ["ours", "peft"])
        alone = {
            side: common.child(__file__, {"kind": f"speed-{side}", **work}, given.threads) for side in kinds
        }  # fmt: skip
        value = {**work, "threads": given.threads, "alone": alone}
        if len(kinds) > 1:
            value["windows"] = common.child(__file__, {"kind": "speed-both", **work}, given.threads)
        keep("speed", key, value, given.threads)
        print(key, compared(value), flush=True)


def seconds(value: dict[str, Any]) -> dict[str, float]:
    """Return each side's time for the steps: the median window, or the run alone where there is one side."""
    windows = value.get("windows")
    if windows is None:
        return {side: found["seconds"] for side, found in value["alone"].items()}
    return {side: statistics.median(found) for side, found in windows.items()}


def compared(value: dict[str, Any]) -> str:
    """Say how the two sides stand to each other."""
    found, alone = seconds(value), value["alone"]
    if "peft" not in found:
        return f"ours {found['ours']:.2f} s"
    pairs = [theirs / mine for mine, theirs in zip(value["windows"]["ours"], value["windows"]["peft"], strict=True)]
    memory = alone["ours"]["peak_bytes"] / alone["peft"]["peak_bytes"]
    return (
        f"ours {found['ours']:.2f} s, PEFT {found['peft']:.2f} s: {found['peft'] / found['ours']:.2f}x faster "
        f"(windows {min(pairs):.2f} to {max(pairs):.2f}), memory {memory:.2f}x"
    )


# Table --------------------------------------------------------------------------------------------------------


def table(given: argparse.Namespace) -> None:
    """Print what was measured as markdown."""
    print("\n".join(tables(given.tasks, given.methods, given.rows)))


def tables(
    tasks: Sequence[str] = TASKS, methods: Sequence[str] = tuple(METHODS), sizes: Sequence[int] = (8, 32)
) -> list[str]:
    """Word what was measured as markdown, a line each."""
    found, lines = load(), list[str]()
    for task in tasks:
        what = "test accuracy [%]" if task == "classification" else "held-out nats per token"
        heads = ["method", "trainable", "ours", "PEFT"]
        heads += [f"{word}, {rows} rows" for rows in sizes for word in ("ms per step ours / PEFT", "MB ours / PEFT")]
        lines += ["", f"### {task}: {what}", "", f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
        lines += [f"| {' | '.join(_row(found, name, task, sizes))} |" for name in methods if (name, task) not in ABSENT]
    return lines


def _row(found: dict[str, Any], name: str, task: str, sizes: Sequence[int]) -> list[str]:
    scores = [_score(found["quality"], name, task, side) for side in ("ours", "peft")]
    measured = [found["speed"].get(f"{name}/{task}/{rows}") for rows in sizes]
    count = next((one["alone"]["ours"]["trainable"] for one in measured if one), None)
    cells = [name, f"{100 * count / BASE[task]:.2f} %" if count else "", *scores]
    for one in measured:
        cells.append(" / ".join(f"{1e3 * some / one['steps']:.0f}" for some in seconds(one).values()) if one else "")
        cells.append(" / ".join(f"{side['peak_bytes'] / 1e6:.0f}" for side in one["alone"].values()) if one else "")
    return cells


def _score(quality: dict[str, Any], name: str, task: str, side: str) -> str:
    prefix, factor = f"{name}/{task}/{side}/", 100 if task == "classification" else 1
    runs = [value for key, value in quality.items() if key.startswith(prefix)]
    if not runs:
        return ""
    mean, low, high = (factor * statistics.mean(run["score"][end] for run in runs) for end in ("value", "low", "high"))
    digits = 1 if task == "classification" else 3
    return f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f}; {len(runs)} seeds)"


def worker(work: dict[str, Any]) -> dict[str, Any]:
    """Carry out one measurement."""
    return WORKERS[work["kind"]](work)


def main() -> None:
    """Read the command line."""
    parser = common.parser(__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("quality", "speed", "table"):
        one = verbs.add_parser(verb)
        one.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
        one.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
        one.add_argument("--threads", type=int, default=2)
        one.add_argument("--again", action="store_true")
        one.add_argument("--steps", type=int, default=200 if verb == "quality" else 12)
        if verb == "quality":
            one.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
            one.add_argument("--epochs", type=int, default=4)
            one.add_argument("--sides", nargs="+", choices=("ours", "peft"), default=["ours", "peft"])
        else:
            one.add_argument("--rows", nargs="+", type=int, default=[8, 32])
    given = parser.parse_args()
    {"quality": quality, "speed": speed, "table": table}[given.verb](given)


if __name__ == "__main__":
    common.begin(worker, main)
