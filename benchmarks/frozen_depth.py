"""Deltas in the upper half: what keeping the frozen blocks' output between epochs saves, and what int8 products cost.

    TUNESMITH_DATA=... python benchmarks/frozen_depth.py [--epochs 10] [--rounds 3] [--threads 2]

BANKING77 with ten rows per label, MiniLM, LoRA of rank 8, no dropout, the same seed and steps. Sides, in turn, each in
its own process: LoRA in every block, LoRA in the upper half without and with kept states (in memory as computed, in
memory as bfloat16), and LoRA in every block with 8-bit products. Time is that of the training steps; accuracy is on the
test rows. With half of the blocks trained a step costs 1 forward and 1/2 backward pass without kept states and 1/2 and
1/2 with them: 1.5 times is the most that can be won, 2 times against every block.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import common

PATH = common.RESULTS / "frozen_depth.json"
SIDES: dict[str, dict[str, Any]] = {
    "every block": {"layers": "all-linear", "cache": "off"},
    "every block, int8": {"layers": "all-linear", "cache": "off", "precision": "int8"},
    "upper half": {"layers": "top-half", "cache": "off"},
    "upper half, kept": {"layers": "top-half", "cache": "memory"},
    "upper half, kept as bfloat16": {"layers": "top-half", "cache": "memory", "cache_type": "bfloat16"},
}


def write_rows(folder: Path) -> None:
    """Write the three parts as files with a text and a label per row."""
    for part in ("train_10", "valid", "test"):
        lines = [json.dumps({"text": text, "label": label}) for text, label in zip(*common.banking(part), strict=True)]
        (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def trained(work: dict[str, Any]) -> dict[str, Any]:
    """Carry out one side's recipe."""
    import tunesmith
    from tunesmith.core.memory import peak_bytes, restart_peak

    folder, side = Path(work["folder"]), dict(SIDES[work["side"]])
    layers = side.pop("layers")
    restart_peak()
    with tempfile.TemporaryDirectory() as output:
        run = tunesmith.train(
            {
                "task": "text-classification",
                "model": "minilm",
                "data": {
                    "train": str(folder / "train_10.jsonl"),
                    "validation": str(folder / "valid.jsonl"),
                    "test": str(folder / "test.jsonl"),
                },
                "method": {"name": "lora", "rank": 8, "layers": layers},
                "training": {"epochs": work["epochs"], "learning_rate": 3e-3, "dropout": 0.0, **side},
                "evaluation": {"baselines": False, "resamples": 1000},
                "output": str(Path(output) / "run"),
            }
        )
        score = run.metrics["test"]["accuracy"]
        return {
            "seconds": run.summary["training_seconds"],
            "peak_bytes": peak_bytes(),
            "accuracy": {key: score[key] for key in ("value", "low", "high")},
        }


def main() -> None:
    if len(sys.argv) == 3 and sys.argv[1] == "worker":
        print(json.dumps(trained(json.loads(sys.argv[2]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as scratch:
        write_rows(Path(scratch))
        for number in range(given.rounds):
            for side, own in runs.items():
                work = {"side": side, "folder": scratch, "epochs": given.epochs}
                found = common.child(__file__, work, given.threads)
                own.append(found)
                score = found["accuracy"]
                print(f"round {number} {side}: {found['seconds']:.1f} s, {found['peak_bytes'] / 1e6:.0f} MB, accuracy "
                      f"{100 * score['value']:.2f} ({100 * score['low']:.2f} to {100 * score['high']:.2f})",
                      flush=True)  # fmt: skip
    middle = {side: common.medians(own, ("seconds", "peak_bytes")) for side, own in runs.items()}
    for side in list(SIDES)[1:]:
        for other in ("every block", "upper half"):
            if side != other:
                ratio = middle[other]["seconds"] / middle[side]["seconds"]
                print(f"{side}: {ratio:.2f} times as fast as {other}")
    PATH.parent.mkdir(exist_ok=True)
    found = {"epochs": given.epochs, "runs": runs, "medians": middle, "machine": common.machine(given.threads)}
    PATH.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
