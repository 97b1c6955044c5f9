"""What less precision costs: test accuracy and memory of the same run with fewer bits, seed by seed on the same rows.

    TUNESMITH_DATA=... python benchmarks/precision_cost.py [--seeds 3] [--threads 2] [--ways ...] [--limit ROWS]

BANKING77 with ten rows per label (two of them validation), LoRA at the defaults, 3,080 test rows, which choose nothing.
`float32` is the reference; products of frozen weights in bfloat16 and in 8 bits (training.precision), and frozen
weights held in 8 and in 4 bits (model.quantization). The difference is paired: rows and seeds are both drawn anew. On a
processor without instructions for bfloat16 and 8-bit products these take far longer than float32, and round the same.
Results go to benchmarks/results/precision_cost.json, and a script that was interrupted goes on.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import common
from closed_loop import answered, gain, recipe

WAYS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16 products": {"training": {"precision": "bfloat16"}},
    "int8 products": {"training": {"precision": "int8"}},
    "int8 weights": {"model": {"name": "minilm", "quantization": "int8"}},
    "int4 weights": {"model": {"name": "minilm", "quantization": "int4"}},
}


def worker(work: dict[str, Any]) -> dict[str, Any]:
    """Train once, and say which test rows are right."""
    import numpy as np

    import tunesmith
    from tunesmith.core.memory import peak_bytes

    with tempfile.TemporaryDirectory() as scratch:
        folder, began = Path(scratch), time.perf_counter()
        wanted = recipe({"set": "BANKING77", "labels": None, "split": "test", **work}, folder)
        if work["limit"]:
            test = (folder / "test.csv").read_text().splitlines(keepends=True)
            (folder / "test.csv").write_text("".join(test[: work["limit"] + 1]))
        run = tunesmith.train({**wanted, **WAYS[work["way"]]})
        right = np.array(answered(run, folder))
        seconds, peak = time.perf_counter() - began, peak_bytes()
    packed = np.packbits(right).tobytes().hex()
    return {"accuracy": float(right.mean()), "right": packed, "rows": len(right), "seconds": seconds,
            "peak_bytes": peak}  # fmt: skip


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--limit", type=int, help="test rows, for a look at the script")
    given = parser.parse_args()
    for seed in range(given.seeds):
        for way in given.ways:
            runs = common.kept("precision_cost").get(way, {}).get("runs", {})
            if str(seed) not in runs:
                work = {"way": way, "seed": seed, "limit": given.limit}
                runs[str(seed)] = common.child(__file__, work, given.threads)
                common.keep("precision_cost", way, {"runs": runs, "machine": common.machine(given.threads)})
                print(f"{way} seed {seed}: {100 * runs[str(seed)]['accuracy']:.2f} %", flush=True)
    told(given.ways)


def told(ways: list[str]) -> None:
    """Compare every way with the reference on the seeds that both have, keep it, and print it."""
    cases = common.kept("precision_cost")
    for way in ways:
        both = sorted(set(cases[way]["runs"]) & set(cases["float32"]["runs"]))
        own, reference = ([cases[one]["runs"][seed] for seed in both] for one in (way, "float32"))
        change = gain(own, reference)
        common.keep("precision_cost", way, {**cases[way], "change": change, "seeds": len(both)})
        points = f"{100 * change['value']:+.2f} points ({100 * change['low']:+.2f} to {100 * change['high']:+.2f})"
        accuracy = statistics.mean(one["accuracy"] for one in own)
        print(f"{way}: {100 * accuracy:.2f} %, {points}", flush=True)


if __name__ == "__main__":
    common.begin(worker, main)
