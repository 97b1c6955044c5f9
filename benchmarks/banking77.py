"""BANKING77 spoilt on purpose, and one run of the product on it: what imbalance.py and noisy_losses.py share."""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import common

Rows = list[tuple[str, str]]
METRICS = ["macro-f1", "accuracy"]


def rows(part: str) -> Rows:
    """Return texts and labels of the published train or test file."""
    path = common.place("TUNESMITH_DATA") / "banking77" / f"{part}.csv"
    with open(path, encoding="utf-8", newline="") as file:
        return [(row["text"], row["category"]) for row in csv.DictReader(file)]


def write(path: Path, found: Rows) -> str:
    """Write rows as a file for a recipe."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(found)
    return str(path)


def trained(train: Rows, held: Rows, test: Rows, work: dict[str, Any]) -> dict[str, Any]:
    """Train MiniLM with LoRA in one way and score the test rows; the last epoch counts, so nothing is chosen."""
    import tunesmith

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        run = tunesmith.train(
            {
                "task": {"name": "text-classification", **work["way"].get("task", {})},
                "data": {"train": write(folder / "train.csv", train), "validation": write(folder / "held.csv", held),
                         "test": write(folder / "test.csv", test)},
                "method": {"name": "lora", "rank": 8},
                "training": {"epochs": work["epochs"], "learning_rate": 2e-3, "best": "last",
                             **work["way"].get("training", {})},
                "evaluation": {"metrics": METRICS, "baselines": False, "resamples": 1000},
                "seed": work["seed"],
                "output": str(folder / "run"),
            }
        )  # fmt: skip
        return {name: run.metrics["test"][name] for name in METRICS} | {
            "rows": len(train), "steps": run.summary["steps"], "seconds": run.summary["training_seconds"],
        }  # fmt: skip


def reader(text: str | None, ways: dict[str, Any]) -> argparse.ArgumentParser:
    """Make the reader of a script's command line."""
    found = common.parser(text)
    found.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    found.add_argument("--epochs", type=int, default=6)
    found.add_argument("--ways", nargs="+", choices=list(ways), default=list(ways))
    found.add_argument("--labels", type=int, default=77, help="only so many labels, to try the script")
    found.add_argument("--threads", type=int, default=2)
    found.add_argument("--no-keep", action="store_true", help="print only")
    return found


def table(name: str, script: str, given: argparse.Namespace, ways: dict[str, Any], more: dict[str, Any]) -> None:
    """Train every way with every seed, each in a process of its own; print and keep one table."""
    found: dict[str, list[dict[str, Any]]] = {}
    for way in given.ways:
        for seed in given.seeds:
            work = {"way": ways[way], "seed": seed, "epochs": given.epochs, "labels": given.labels, **more}
            one = {"seed": seed, **common.child(script, work, given.threads)}
            found.setdefault(way, []).append(one)
            said = ", ".join(f"{metric} {100 * one[metric]['value']:.1f}" for metric in METRICS)
            print(f"{way}, seed {seed}: {said} ({one['rows']} rows, {one['steps']} steps)", flush=True)
    means = {
        way: {metric: statistics.mean(one[metric]["value"] for one in own) for metric in METRICS}
        for way, own in found.items()
    }
    for way, scores in means.items():
        print(f"{way:32} " + "  ".join(f"{metric} {100 * value:.2f}" for metric, value in scores.items()))
    case = ", ".join([f"{given.epochs} epochs", *(f"{key} {value}" for key, value in more.items())])
    if given.labels != 77:
        case += f", {given.labels} labels"
    if not given.no_keep:
        common.keep(name, case, {"means": means, "runs": found, "machine": common.machine(given.threads)})
    json.dump(means, sys.stdout)
    print()
