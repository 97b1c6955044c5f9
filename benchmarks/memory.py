"""The memory planner: what it predicts, what training then takes, and whether a limit is kept.

    TUNESMITH_DATA=... TUNESMITH_MODELS=... python benchmarks/memory.py [--threads 2] [--cases ...]

Every case is a run of its own process: classification of BANKING77 with MiniLM, instruction tuning of a Llama of 30
million random numbers on gsm8k, and text generation with stories260K; each as it comes, and with
`training.memory_limit`, where passes get smaller and blocks run a second time. Memory is that of the whole process
during training and its validation.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import common

PATH = common.RESULTS / "memory.json"
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "banking": ("banking", {}),
    "banking, 8 epochs": ("banking", {"epochs": 8}),
    "banking, 750 MiB": ("banking", {"memory_limit": 750}),
    "banking, 735 MiB": ("banking", {"memory_limit": 735}),
    "gsm8k": ("gsm8k", {}),
    "gsm8k, whole steps": ("gsm8k", {"tokens_per_pass": 4096}),
    "gsm8k, 900 MiB": ("gsm8k", {"memory_limit": 900}),
    "gsm8k, 830 MiB": ("gsm8k", {"memory_limit": 830}),
    "stories": ("stories", {}),
}


def banking(folder: Path) -> dict[str, Any]:
    """640 sentences of 77 kinds."""
    import encoder_classification

    encoder_classification.files(folder, 640, 100)
    return {
        "task": "text-classification",
        "data": {"train": str(folder / "train.csv"), "validation": str(folder / "held.csv"), "label": "category"},
        "training": {"epochs": 1, "batch_size": 32},
        "evaluation": {"baselines": False, "resamples": 100},
    }


def gsm8k(folder: Path) -> dict[str, Any]:
    """64 worked answers."""
    import instruction_tuning

    instruction_tuning.build(folder, 64, "gsm8k")
    return {
        "task": {"name": "instruction-tuning", "answered_rows": 0, "samples": 0},
        "model": str(folder),
        "data": {"train": str(folder / "rows.jsonl"), "validation": 0.1},
        "prompt": {"chat": "plain"},
        "training": {"epochs": 1, "batch_size": 8},
    }


def stories(folder: Path) -> dict[str, Any]:
    """60,000 characters of Shakespeare."""
    text = (common.place("TUNESMITH_DATA") / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")
    (folder / "prose.txt").write_text(text[:60_000], encoding="utf-8")
    return {
        "task": {"name": "text-generation", "samples": 0},
        "model": str(common.stories()),
        "data": {"train": str(folder / "prose.txt"), "validation": 0.1, "max_tokens": 256},
        "training": {"epochs": 1, "batch_size": 32},
    }


def trained(work: dict[str, Any]) -> dict[str, Any]:
    """Carry out one case."""
    import tunesmith

    kind, training = CASES[work["case"]]
    with tempfile.TemporaryDirectory() as scratch:
        recipe = {"banking": banking, "gsm8k": gsm8k, "stories": stories}[kind](Path(scratch))
        recipe["training"] |= training
        run = tunesmith.train({**recipe, "method": {"name": "lora", "rank": 8}, "output": str(Path(scratch) / "run")})
        found = run.summary
    predicted, measured = found["predicted_peak_memory_bytes"], found["peak_memory_bytes"]
    limit = training.get("memory_limit")
    return {
        "predicted_bytes": predicted,
        "measured_bytes": measured,
        "error": predicted / measured - 1,
        "limit_bytes": None if limit is None else limit * 2**20,
        "seconds": found["training_seconds"],
    }


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    given = parser.parse_args()
    found = json.loads(PATH.read_text()) if PATH.exists() else {}
    for case in given.cases:
        found[case] = one = common.child(__file__, {"case": case}, given.threads)
        limit = "" if one["limit_bytes"] is None else f", limit {one['limit_bytes'] / 1e6:.0f}"
        print(f"{case}: predicted {one['predicted_bytes'] / 1e6:.0f} MB, measured {one['measured_bytes'] / 1e6:.0f} MB "
              f"({100 * one['error']:+.1f} %){limit}", flush=True)  # fmt: skip
    found["machine"] = common.machine(given.threads)
    PATH.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    common.begin(trained, main)
