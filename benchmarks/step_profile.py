"""Where the time of a training step goes: kernels by their time, and how long a GPU stands still between them.

    TUNESMITH_DATA=... python benchmarks/step_profile.py [--setting "1B packed"] [--device cuda] [--batch 32]
                                                         [--warm 5] [--steps 2] [--shown 30]

The settings are those of instruction_tuning.py; LoRA of rank 8 on every linear map, in the product's own loop. After
the steps that warm up, some are recorded by torch's profiler. On a CPU the operations are listed by their own time. On
a GPU kernels are, with what the CPU did in the longest gaps between them; recording slows the CPU down, so gaps are
longer than without it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import common
import instruction_tuning

Gap = tuple[float, float]  # how long, and since when [us]


def recorded(given: argparse.Namespace) -> tuple[Any, list[float]]:
    """Train; return the profile, and the seconds of each step."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from tunesmith.methods.lora import Lora
    from tunesmith.training.loop import Loop

    rows = given.batch * (given.warm + given.steps + 1)
    on_gpu = given.device == "cuda"
    profiler = profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])], acc_events=True)
    times = [time.perf_counter()]

    def stepped(*_: Any) -> None:
        if on_gpu and len(times) in (given.warm, given.warm + given.steps):
            torch.cuda.synchronize()  # what is recorded begins and ends with whole steps
        times.append(time.perf_counter())
        if len(times) - 1 == given.warm:
            profiler.__enter__()
        if len(times) - 1 == given.warm + given.steps:
            profiler.__exit__(None, None, None)

    with tempfile.TemporaryDirectory() as scratch:
        instruction_tuning.build(Path(scratch), rows, given.setting, given.device)
        method = Lora(rank=instruction_tuning.RANK, layers=tuple(instruction_tuning.LAYERS))
        work = {"folder": scratch, "batch": given.batch, "device": given.device}
        Loop([instruction_tuning.our_trial(work, method)]).fit(stepped)
    return profiler, [end - start for start, end in pairwise(times)]


def gaps_of(kernels: list[Any]) -> tuple[float, list[Gap]]:
    """Return how long kernels ran, together, and the gaps between them; they come in the order of their start. [us]"""
    busy, end, found = 0.0, kernels[0].time_range.start, list[Gap]()
    for kernel in kernels:
        start, stop = kernel.time_range.start, kernel.time_range.end
        if start > end:
            found.append((start - end, end))
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return busy, found


def meanwhile(gap: Gap, operations: list[Any]) -> str:
    """Say what the CPU did in a gap, the longest first."""
    long, since = gap
    inside = Counter[str]()
    for one in operations:
        inside[one.name[:44]] += max(0, min(one.time_range.end, since + long) - max(one.time_range.start, since))
    return ", ".join(f"{name} {spent:.0f}" for name, spent in inside.most_common(4) if spent)


def on_a_gpu(profiler: Any, given: argparse.Namespace) -> None:
    """Print kernels and gaps."""
    import torch

    cuda = torch.autograd.DeviceType.CUDA
    sides = [[one for one in profiler.events() if (one.device_type == cuda) == gpu] for gpu in (True, False)]
    kernels, operations = (sorted(side, key=lambda one: one.time_range.start) for side in sides)
    busy, gaps = gaps_of(kernels)
    still = sum(gap[0] for gap in gaps)
    print(f"of a step kernels run {busy / 1e3 / given.steps:.1f} ms, none runs {still / 1e3 / given.steps:.1f} ms")
    for gap in sorted(gaps, reverse=True)[:8]:
        print(f"  {gap[0]:8.0f} us without a kernel: {meanwhile(gap, operations)}")
    spent, count = Counter[str](), Counter[str]()
    for one in kernels:
        spent[one.name] += one.time_range.end - one.time_range.start
        count[one.name] += 1
    show(spent, count, given)


def on_a_cpu(profiler: Any, given: argparse.Namespace) -> None:
    """Print operations."""
    found = profiler.key_averages()
    show(Counter({one.key: one.self_cpu_time_total for one in found}), {one.key: one.count for one in found}, given)


def show(spent: Counter[str], count: Mapping[str, int], given: argparse.Namespace) -> None:
    """Print what took longest; times are in microseconds, of all recorded steps."""
    for name, total in spent.most_common(given.shown):
        each = f"{count[name] / given.steps:7.1f} x {total / count[name]:8.1f} us"
        print(f"{total / 1e3 / given.steps:8.2f} ms per step, {each}  {name[:90]}")


def main() -> None:
    """Read the command line."""
    parser = common.parser(__doc__)
    parser.add_argument("--setting", choices=instruction_tuning.SETTINGS, default="gsm8k")
    parser.add_argument("--device", choices=instruction_tuning.DTYPES, default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--warm", type=int, default=5, help="steps before the first that is recorded")
    parser.add_argument("--steps", type=int, default=2, help="that are recorded")
    parser.add_argument("--shown", type=int, default=30, help="kernels or operations")
    given = parser.parse_args()
    profiler, seconds = recorded(given)
    plain = seconds[1 : given.warm]
    print(f"{given.setting}: {1e3 * statistics.median(plain):.1f} ms per step before recording, median of {len(plain)}")
    (on_a_gpu if given.device == "cuda" else on_a_cpu)(profiler, given)


if __name__ == "__main__":
    main()
