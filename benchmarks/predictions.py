"""The advisor's predictions: memory and time of ten recipes, and what they then took.

    TUNESMITH_DATA=... TUNESMITH_MODELS=... python benchmarks/predictions.py [--cases ...]

None of the recipes was used to find the numbers in `search/measuring.py` or `training/planning.py`. Prediction and run
have a process of their own each, with one thread. Seconds are processor seconds on both sides, so that other work on
the machine does not count; the run's wall-clock seconds stand beside them. Memory is the process's peak. The aim is
15 % of memory and 30 % of time.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import common

PATH = common.RESULTS / "predictions.json"
AIMS = {"memory": 0.15, "time": 0.30}
# Kind of data, rows, and keys of the recipe.
CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "minilm, lora of rank 4, batch 16": (
        "banking", 320, {"method": {"name": "lora", "rank": 4}, "training": {"epochs": 2, "batch_size": 16}}),
    "minilm, lora in the upper half, kept, batch 8": (
        "banking", 320, {"method": {"name": "lora", "layers": "top-half"}, "training": {"epochs": 4, "batch_size": 8}}),
    "minilm, bitfit, batch 48, baselines": (
        "banking", 400, {"method": "bitfit", "training": {"epochs": 2, "batch_size": 48}, "evaluation": {}}),
    "minilm, full, batch 16": (
        "banking", 320, {"method": "full", "training": {"epochs": 2, "batch_size": 16}}),
    "minilm, ia3, batch 64": (
        "banking", 400, {"method": "ia3", "training": {"epochs": 2, "batch_size": 64}}),
    "minilm, adapter, batch 32": (
        "banking", 320, {"method": "adapter", "training": {"epochs": 3, "batch_size": 32}}),
    "minilm, head alone, batch 32, linear head": (
        "banking", 400, {"method": "head-only", "task": {"head_kind": "linear"},
                         "training": {"epochs": 3, "batch_size": 32}}),
    "stories260K, lora, rows of 128, batch 16": (
        "stories", 60_000, {"method": "lora", "data": {"max_tokens": 128},
                            "training": {"epochs": 2, "batch_size": 16}}),
    "stories260K, full, rows of 64, batch 64": (
        "stories", 60_000, {"method": "full", "data": {"max_tokens": 64}, "training": {"epochs": 2, "batch_size": 64}}),
    "stories260K, last layers, rows of 256, batch 8": (
        "stories", 60_000, {"method": "last-layers", "data": {"max_tokens": 256},
                            "training": {"epochs": 3, "batch_size": 8}}),
}  # fmt: skip


def recipe(case: str, folder: Path) -> dict[str, Any]:
    """Write a case's data and return its recipe."""
    kind, size, own = CASES[case]
    if kind == "banking":
        texts, labels = common.banking("train_10")
        rows = [json.dumps({"text": text, "label": label}) for text, label in zip(texts, labels, strict=True)]
        (folder / "train.jsonl").write_text("\n".join(rows[:size]) + "\n", encoding="utf-8")
        found: dict[str, Any] = {
            "task": {"name": "text-classification"},
            "data": {"train": str(folder / "train.jsonl"), "validation": 0.2},
            "evaluation": {"baselines": False},
        }
    else:
        text = (common.place("TUNESMITH_DATA") / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")
        (folder / "prose.txt").write_text(text[:size], encoding="utf-8")
        found = {
            "task": {"name": "text-generation", "samples": 0},
            "model": str(common.stories()),
            "data": {"train": str(folder / "prose.txt"), "validation": 0.1},
        }
    for key, value in own.items():
        found[key] = {**found[key], **value} if value and isinstance(found.get(key), dict) else value
    return {**found, "output": str(folder / "run")}


def predicted(values: dict[str, Any]) -> dict[str, Any]:
    """Ask the advisor."""
    from tunesmith.recipe.loading import load_recipe
    from tunesmith.search.measuring import Bench

    began, checked = time.process_time(), load_recipe(values)
    cost = Bench(checked, tokens=2500, clock=time.process_time).cost(checked)
    took = time.process_time() - began
    return {"bytes": cost.memory_bytes, "seconds": cost.seconds, "parts": cost.parts, "asking_seconds": took}


def measured(values: dict[str, Any]) -> dict[str, Any]:
    """Carry the recipe out."""
    import tunesmith

    began, wall = time.process_time(), time.perf_counter()
    run = tunesmith.train(values)
    seconds, wall = time.process_time() - began, time.perf_counter() - wall
    found = run.summary
    return {"bytes": found["peak_memory_bytes"], "seconds": seconds, "wall_seconds": wall,
            "training_wall_seconds": found["training_seconds"]}  # fmt: skip


def _answer(work: Callable[[dict[str, Any]], dict[str, Any]], values: dict[str, Any], end: Connection) -> None:
    end.send(work(values))


def apart(work: Callable[[dict[str, Any]], dict[str, Any]], values: dict[str, Any]) -> dict[str, Any]:
    """Do a piece of work in a process of its own, the program loaded and nothing else."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_answer, args=(work, values, theirs))
    process.start()
    theirs.close()
    found: dict[str, Any] = ours.recv()
    process.join()
    return found


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    given = parser.parse_args()

    import tunesmith.api  # noqa: F401 - loaded once, for all processes

    found = json.loads(PATH.read_text()) if PATH.exists() else {"cases": {}}
    for case in given.cases:
        with tempfile.TemporaryDirectory() as scratch:
            values = recipe(case, Path(scratch))
            said, was = apart(predicted, values), apart(measured, values)
        errors = {"memory": said["bytes"] / was["bytes"] - 1, "time": said["seconds"] / was["seconds"] - 1}
        kept = {key: abs(error) <= AIMS[key] for key, error in errors.items()}
        found["cases"][case] = {"predicted": said, "measured": was, "errors": errors, "within": kept}
        memory = f"{said['bytes'] / 1e6:.0f} / {was['bytes'] / 1e6:.0f} MB ({100 * errors['memory']:+.1f} %)"
        seconds = f"{said['seconds']:.1f} / {was['seconds']:.1f} s ({100 * errors['time']:+.1f} %)"
        print(f"{case}: memory {memory}, time {seconds}", flush=True)
        found["machine"] = common.machine(1)
        PATH.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
