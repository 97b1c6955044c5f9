"""How a training step's time and memory grow with rows, row length, model width and the number of deltas.

    python benchmarks/growth.py [--rounds 3] [--threads 2] [--axes rows length width deltas] [--device cpu]

A Llama shape of four layers with random weights, LoRA of rank 8 on every linear map of the blocks. One thing changes at
a time from 8 rows of 128 tokens, width 256, one delta; with many deltas each has one row of its own, all in one pass.
Every point is a process of its own; those of an axis run in turn. Memory is what steps take on top of the process that
holds the model and its deltas. With --device cuda the frozen weights are bfloat16, all points run in one process, and
memory is what torch allocated there. Results go to benchmarks/results/growth.json.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import common
from instruction_tuning import DTYPES
from method_sides import WRITER

MIDDLE = {"rows": 8, "length": 128, "width": 256, "deltas": 1}
AXES = {
    "rows": (1, 2, 4, 8, 16, 32),
    "length": (32, 64, 128, 256, 512, 1024),
    "width": (64, 128, 256, 512, 1024),
    "deltas": (1, 2, 4, 8, 16, 32, 64),
}
VOCABULARY, WARM, STEPS = 1024, 2, 6
KEYS = {"step_seconds": "s", "peak_bytes": "MB"}


def worker(work: dict[str, Any]) -> dict[str, float]:
    """Train a few steps; every delta has rows of its own."""
    import torch
    import transformers

    from tunesmith.core.memory import resident_bytes
    from tunesmith.methods.lora import Lora
    from tunesmith.models.backbone import Backbone

    device = torch.device(work["device"])
    on_gpu = device.type == "cuda"
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=work["width"], num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, intermediate_size=3 * work["width"], max_position_embeddings=2048,
    )  # fmt: skip
    core = Backbone(transformers.LlamaModel(config).eval().to(device, getattr(torch, DTYPES[device.type])))
    method = Lora(rank=8, layers=WRITER)
    writers = [common.writer(core, method, f"d{n}", 1e-3, WARM + STEPS) for n in range(work["deltas"])]
    rows = torch.randint(VOCABULARY, (work["rows"], work["length"]))
    peak = common.peak(work)
    resting, times = torch.cuda.memory_allocated() if on_gpu else resident_bytes(), list[float]()
    common.write_steps(core, writers, WARM, lambda _: rows)
    for _ in range(STEPS):
        began = time.perf_counter()
        common.write_steps(core, writers, 1, lambda _: rows)
        if on_gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return {"step_seconds": statistics.median(times), "peak_bytes": peak() - resting}


def main() -> None:
    parser = common.turns(common.parser(__doc__))
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--device", choices=DTYPES, default="cpu")
    given = parser.parse_args()
    on_cpu = given.device == "cpu"
    for axis in given.axes:
        middle = {**MIDDLE, "rows": 1} if axis == "deltas" else MIDDLE
        works = {str(value): {**middle, axis: value, "device": given.device} for value in AXES[axis]}
        found = common.in_turn(__file__, works, KEYS, given, axis, None if on_cpu else worker)
        common.keep("growth", axis if on_cpu else f"{axis} on a GPU", found)


if __name__ == "__main__":
    common.begin(worker, main)
