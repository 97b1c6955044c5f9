"""Prompt tuning with 20 and 100 virtual tokens against PEFT's: useful tokens per second and peak memory, in turn.

    TUNESMITH_DATA=... python benchmarks/virtual_prompt.py [--rows 96] [--batch 16] [--rounds 3] [--threads 2]

The model and the gsm8k rows of instruction_tuning.py. PEFT's side is a plain loop in float32 with padded batches of the
same rows, which sends the virtual tokens through the model in front of every row; ours sends them once per step.
By operations alone a step of B rows of s tokens behind P virtual ones gains B (P + s) / (P + B s), attention aside.
Useful tokens are those of the rows, padding and virtual tokens left out. The first step is not timed.
Results go to benchmarks/results/virtual_prompt.json.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import common
from instruction_tuning import RATE, build, family_of, in_our_loop, report

KEYS = {"tokens_per_second": "tokens/s", "peak_bytes": "MB", "last_loss": "nats"}


def ours(work: dict[str, Any]) -> dict[str, Any]:
    """Train with the product's loop."""
    from tunesmith.methods.prompt_tuning import PromptTuning

    return in_our_loop(work, PromptTuning(length=work["length"]))


def theirs(work: dict[str, Any]) -> dict[str, Any]:
    """Train PEFT's version in a plain loop."""
    import peft
    import torch
    import transformers
    from torch.nn.utils.rnn import pad_sequence

    from tunesmith.core.memory import peak_bytes, restart_peak

    split = family_of(Path(work["folder"])).corpus.splits["train"]
    torch.manual_seed(0)
    model = peft.get_peft_model(
        transformers.AutoModelForCausalLM.from_pretrained(work["folder"]),
        peft.PromptTuningConfig(num_virtual_tokens=work["length"], task_type="CAUSAL_LM"),
    )
    model.train()
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer, order = torch.optim.AdamW(trained, lr=RATE), torch.randperm(len(split.tokens)).tolist()
    times, losses = list[float](), list[float]()
    restart_peak()
    for first in range(0, len(order), work["batch"]):
        chosen = order[first : first + work["batch"]]
        rows = [torch.from_numpy(split.tokens[row]).long() for row in chosen]
        learned = [torch.from_numpy(split.tokens.learned(row)).bool() for row in chosen]
        wanted = [row.masked_fill(~mark, -100) for row, mark in zip(rows, learned, strict=True)]
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        ids, labels = pad_sequence(rows, batch_first=True), pad_sequence(wanted, batch_first=True, padding_value=-100)
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        times.append(time.perf_counter())
    return report(times, int(split.tokens.lengths.sum()), work, losses, peak_bytes())


def share(found: dict[str, Any], length: int, batch: int, rows: int) -> dict[str, float]:
    """Return how much faster ours is, and the gain that operations alone would give."""
    speeds = {side: one["tokens_per_second"] for side, one in found["medians"].items()}
    mean = found["runs"]["ours"][0]["tokens"] / rows
    return {"speedup": speeds["ours"] / speeds["peft"], "formula": batch * (length + mean) / (length + batch * mean)}


def worker(work: dict[str, Any]) -> dict[str, Any]:
    """Train one side."""
    return (ours if work["side"] == "ours" else theirs)(work)


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--batch", type=int, default=16)
    given = common.turns(parser).parse_args()
    for length in (20, 100):
        with tempfile.TemporaryDirectory() as scratch:
            build(Path(scratch), given.rows, "gsm8k")
            work = {"folder": scratch, "batch": given.batch, "length": length}
            works = {side: {**work, "side": side} for side in ("ours", "peft")}
            case = f"{length} virtual tokens"
            found = common.in_turn(__file__, works, KEYS, given, case)
        found["share"] = share(found, length, given.batch, given.rows)
        print(case, found["share"])
        common.keep("virtual_prompt", case, found)


if __name__ == "__main__":
    common.begin(worker, main)
