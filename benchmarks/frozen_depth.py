"""Deltas in the upper half: what keeping the frozen blocks' output between epochs saves, and what int8 products cost.

    TUNESMITH_DATA=... python benchmarks/frozen_depth.py [--epochs 10] [--rounds 3] [--threads 2]

BANKING77 with ten rows per label, MiniLM, LoRA of rank 8, no dropout, the same seed and steps. Sides, in turn, each in
its own process: LoRA in every block, LoRA in the upper half without and with kept states (in memory as computed, in
memory as bfloat16), and LoRA in every block with 8-bit products. Time is that of the training steps; accuracy is on the
test rows. With half of the blocks trained a step costs 1 forward and 1/2 backward pass without kept states and 1/2 and
1/2 with them: 1.5 times is the most that can be won, 2 times against every block.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import common

VALIDATION = 154  # rows: it is scored after every epoch
KEYS = {"rows_per_second": "rows/s", "peak_bytes": "MB", "accuracy": "of 1"}
SIDES: dict[str, dict[str, Any]] = {
    "upper half, kept as bfloat16": {"layers": "top-half", "cache": "memory", "cache_type": "bfloat16"},
    "upper half, kept": {"layers": "top-half", "cache": "memory"},
    "every block, int8": {"layers": "all-linear", "cache": "off", "precision": "int8"},
    "every block": {"layers": "all-linear", "cache": "off"},
    "upper half": {"layers": "top-half", "cache": "off"},
}


def write_rows(folder: Path) -> None:
    """Write the three parts as files with a text and a label per row."""
    for part in ("train_10", "valid", "test"):
        rows = list(zip(*common.banking(part), strict=True))[: VALIDATION if part == "valid" else None]
        lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
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
            "rows_per_second": run.summary["examples_per_second"],
            "seconds": run.summary["training_seconds"],
            "peak_bytes": peak_bytes(),
            "accuracy": score["value"],
        }


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    given = common.turns(parser).parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        write_rows(Path(scratch))
        works = {side: {"side": side, "folder": scratch, "epochs": given.epochs} for side in SIDES}
        found = common.in_turn(__file__, works, KEYS, given, f"{given.epochs} epochs")
    common.keep("frozen_depth", f"{given.epochs} epochs", found)


if __name__ == "__main__":
    common.begin(trained, main)
