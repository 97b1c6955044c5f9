"""The gradients of 1, 2 and 4 processes that train together, what they send, and what of the base they hold.

    TUNESMITH_DATA=... python benchmarks/processes.py [--shard]

MiniLM in float64 with LoRA on rows of BANKING77, nothing dropped at random; torchrun starts the processes, gloo sums on
the CPU. Every step's gradient, clipped, is compared with that of one process, and so is the delta at the end. What goes
through torch's all_reduce is counted there, beside what the run itself reports: gradients, which are the delta's bytes
(the head's among them), and two numbers per step, the loss and the flag that ends all after the same one. With --shard
the processes share the base out (training.shard_base): what each holds of the base's weights is counted between steps,
of the tensors themselves, and compared with one process that holds all. Results go to benchmarks/results/processes.json
and processes_shard.json.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import common

ROWS, BATCH = 96, 16
COUNTS = (1, 2, 4)


def recipe_of(folder: Path, count: int, shard: bool) -> dict[str, Any]:
    """Return the recipe of one run."""
    return {
        "model": {"name": "minilm", "dtype": "float64", "device": "cpu"},
        "task": {"name": "text-classification", "head_dropout": 0.0},
        "data": {"train": str(folder / "train.csv"), "validation": str(folder / "validation.csv"), "label": "category"},
        "method": {"name": "lora"},
        "training": {"epochs": 1, "batch_size": BATCH, "dropout": 0.0, "shard_base": shard},
        "evaluation": {"resamples": 100, "baselines": False},
        "output": str(folder / f"run-{count}"),
    }


def held_bytes(model: Any) -> int:
    """Count what this process holds of a model's weights."""
    parts = [one.to_local() if hasattr(one, "to_local") else one for one in model.parameters()]
    return sum({part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in parts}.values())


def worker(folder: Path, shard: bool) -> None:
    """Train as one of several processes; the first keeps its steps' gradients and what it gave to all_reduce."""
    import torch
    import torch.distributed as dist
    from safetensors.torch import save_file

    import tunesmith
    from tunesmith.core.launch import launched
    from tunesmith.training.loop import Loop
    from tunesmith.training.optimizing import Optimizer

    place, gradients, given = launched(), dict[str, torch.Tensor](), list[int]()
    stepped, reduced, timed, held = Optimizer.step, dist.all_reduce, Loop._timed, set[int]()

    def step(self: Optimizer, *words: Any) -> dict[str, float]:
        found = stepped(self, *words)
        gradients[str(len(gradients))] = torch.cat([one.grad.flatten() for one in self.parameters])
        return found

    def all_reduce(tensor: torch.Tensor, *words: Any, **more: Any) -> Any:
        given.append(tensor.nbytes)
        return reduced(tensor, *words, **more)

    def watched(self: Loop, *words: Any) -> None:
        held.add(held_bytes(self.backbone.model))
        timed(self, *words)

    Optimizer.step, dist.all_reduce, Loop._timed = step, all_reduce, watched
    run = tunesmith.train(recipe_of(folder, place.count, shard))
    (folder / f"held-{place.count}-{place.rank}.json").write_text(json.dumps(max(held)))
    if place.rank == 0:
        save_file(gradients, folder / f"gradients-{place.count}")
        steps, largest = run.summary["steps"], max(given, default=0)
        found = {
            "steps": steps,
            "delta_bytes": 8 * run.summary["trainable_parameters"],
            "gradient_bytes_per_step": sum(one for one in given if one == largest) / steps,
            "other_bytes_per_step": sum(one for one in given if one != largest) / steps,
            "reported": run.summary["processes"],
        }
        (folder / f"found-{place.count}.json").write_text(json.dumps(found))


def furthest(ours: Path, theirs: Path) -> float:
    """Return the largest difference of two files' tensors, relative to the largest number of each tensor."""
    from safetensors.torch import load_file

    first, second = load_file(ours), load_file(theirs)
    if first.keys() != second.keys():
        sys.exit(f"{ours} and {theirs} hold other tensors")
    return max(float((first[key] - second[key]).abs().max() / second[key].abs().max()) for key in second)


def main(shard: bool) -> None:
    source = common.place("TUNESMITH_DATA") / "banking77" / "train.csv"
    folder = Path(tempfile.mkdtemp(prefix="processes-"))
    with open(source, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    step = len(rows) // ROWS
    train = rows[::step][:ROWS]
    known = {label for _, label in train}
    parts = {"train": train, "validation": [row for row in rows[1::step] if row[1] in known][:BATCH]}
    for name, part in parts.items():
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *part])
    table: dict[str, Any] = {}
    for count in COUNTS:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        subprocess.run([*command, __file__, "worker", str(folder), *["--shard"] * shard], check=True,
                       env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
        found = json.loads((folder / f"found-{count}.json").read_text())
        found["gradient_difference"] = furthest(folder / f"gradients-{count}", folder / "gradients-1")
        delta = "delta/adapter_model.safetensors"
        found["delta_difference"] = furthest(folder / f"run-{count}" / delta, folder / "run-1" / delta)
        every = [json.loads((folder / f"held-{count}-{rank}.json").read_text()) for rank in range(count)]
        found["held_base_bytes"] = max(every)
        table[str(count)] = found
        print(json.dumps({count: found}))
    path = common.RESULTS / f"processes{'_shard' if shard else ''}.json"
    path.write_text(json.dumps({"rows": ROWS, "batch": BATCH, "processes": table},
                                                              indent=1) + "\n")  # fmt: skip


if __name__ == "__main__":
    wanted = "--shard" in sys.argv
    worker(Path(sys.argv[2]), wanted) if sys.argv[1:2] == ["worker"] else main(wanted)
