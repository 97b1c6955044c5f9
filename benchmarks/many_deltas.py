"""Eight LoRA candidates in one pass against eight runs in sequence: time, memory and whether they agree.

    TUNESMITH_DATA=... TUNESMITH_MODELS=... python benchmarks/many_deltas.py [--models minilm stories260K/64 ...]
        [--rounds 3] [--steps 60] [--rows 8] [--threads 2]
    python benchmarks/many_deltas.py --dtype float64 --rounds 1    # agreement only: at most 1e-8, nothing is written

Four learning rates times two ranks, every candidate on its own `rows` rows per step: BANKING77 under MiniLM (with the
model's dropout) and tinyshakespeare under stories260K, in rows of 32, 64 and 128 tokens. Each measurement is a process
of its own, in turn (one pass, sequence, one run; again ...). Time is the training alone, after a short warm-up; memory
is the process's peak.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from typing import Any

import common
from common import (
    RESULTS,
    backbone,
    child,
    classifier,
    encoded,
    fit,
    machine,
    medians,
    prose,
    prose_batch,
    repeated,
    stories,
    write_steps,
    writer,
)  # fmt: skip

CANDIDATES = list(itertools.product((2e-4, 5e-4, 1e-3, 2e-3), (4, 8)))
LAYERS = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]
SIDES = ("together", "sequence", "one")


class Encoder:
    """MiniLM on BANKING77."""

    def __init__(self, work: dict[str, Any]) -> None:
        self.core, tokenizer = backbone("minilm", work["dtype"])
        self.split = encoded("train_10", tokenizer)
        self.rows = work["rows"]

    def train(self, candidates: list[tuple[str, float, int]], steps: int) -> list[float]:
        """Train candidates in one pass; return their mean losses of the last ten steps."""
        from tunesmith.methods.lora import Lora

        split = repeated(self.split, steps * self.rows)
        trials = [
            classifier(
                self.core, split, Lora(rank=rank, layers=tuple(LAYERS)), name,
                {"batch_size": self.rows, "learning_rate": rate},
            )
            for name, rate, rank in candidates
        ]  # fmt: skip
        fit(trials)
        for trial in trials:
            trial.tuned.delta.detach()
        return [sum(trial.trained.losses[-10:]) / len(trial.trained.losses[-10:]) for trial in trials]


class Writing:
    """stories260K on tinyshakespeare."""

    def __init__(self, work: dict[str, Any]) -> None:
        self.core, _ = backbone(str(stories()), work["dtype"])
        self.text, _ = prose()
        self.rows, self.length = work["rows"], int(work["model"].partition("/")[2])

    def train(self, candidates: list[tuple[str, float, int]], steps: int) -> list[float]:
        """Train candidates in one pass; return their mean losses of the last ten steps."""
        from tunesmith.methods.lora import Lora

        writers = [writer(self.core, Lora(rank=rank), name, rate, steps) for name, rate, rank in candidates]
        write_steps(self.core, writers, steps, self.batch)
        for one in writers:
            one.delta.detach()
        return [sum(one.losses[-10:]) / len(one.losses[-10:]) for one in writers]

    def batch(self, step: int) -> Any:
        """Return the rows of a step, cut to the length."""
        return prose_batch(self.text, step, self.rows, 0)[:, : self.length]


MODELS = {"minilm": Encoder, "stories260K/32": Writing, "stories260K/64": Writing, "stories260K/128": Writing}


def measure(work: dict[str, Any]) -> dict[str, Any]:
    """Do one side's work in this process."""
    from tunesmith.core.memory import peak_bytes, resident_bytes, restart_peak

    subject = MODELS[work["model"]](work)
    named = [(f"candidate-{number}", rate, rank) for number, (rate, rank) in enumerate(CANDIDATES)]
    subject.train(named[:1], 2)  # what is done only once
    restart_peak()
    resting, began = resident_bytes(), time.perf_counter()
    if work["side"] == "together":
        losses = subject.train(named, work["steps"])
    else:
        chosen = named if work["side"] == "sequence" else named[-1:]
        losses = [subject.train([candidate], work["steps"])[0] for candidate in chosen]
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "peak_bytes": peak_bytes(), "resting_bytes": resting, "losses": losses}


def compare(model: str, given: argparse.Namespace) -> dict[str, Any]:
    """Run the sides in turn and compare their medians."""
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    fixed = {"model": model, "steps": given.steps, "rows": given.rows, "dtype": given.dtype}
    for turn, side in itertools.product(range(given.rounds), SIDES):
        runs[side].append(child(__file__, {**fixed, "side": side}, given.threads))
        found = runs[side][-1]
        print(f"  {model} round {turn + 1} {side}: {found['seconds']:.2f} s, {found['peak_bytes'] / 1e6:.0f} MB")
    middle = {side: medians(runs[side], ("seconds", "peak_bytes", "resting_bytes")) for side in SIDES}
    pairs = zip(runs["together"][0]["losses"], runs["sequence"][0]["losses"], strict=True)
    result = {
        **fixed,
        "medians": middle,
        "speedup": middle["sequence"]["seconds"] / middle["together"]["seconds"],
        "memory_ratio": middle["together"]["peak_bytes"] / middle["one"]["peak_bytes"],
        "largest_loss_difference": max(abs(first - second) / abs(second) for first, second in pairs),
        "rounds": runs,
    }
    print(
        f"{model}: {result['speedup']:.2f}x faster, {result['memory_ratio']:.2f}x the memory of one run, losses of the "
        f"last ten steps differ by at most {result['largest_loss_difference']:.1e}"
    )
    return result


def main() -> None:
    """Read the command line."""
    parser = common.parser(__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    given = parser.parse_args()
    path = RESULTS / "many_deltas.json"
    for model in given.models:
        result = compare(model, given)
        if given.dtype == "float32":
            kept = json.loads(path.read_text())["models"] if path.exists() else {}
            kept[model] = result
            value = {"machine": machine(given.threads), "candidates": CANDIDATES, "models": kept}
            path.write_text(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    common.begin(measure, main)
