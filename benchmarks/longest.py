"""The longest sequence that fits: peak memory of a training step against the length of its one row.

    TUNESMITH_DATA=... python benchmarks/longest.py [--lengths 1024 2048 4096 8192] [--rounds 1] [--threads 2]
        [--go-on]

The Llama shape of instruction_tuning.py with room for more positions, LoRA of rank 8, every token learned. Sides: ours
as it comes, ours with blocks that run a second time (what training.memory_limit chooses last), and PEFT in a plain loop
in float32, and in bfloat16 with gradient checkpointing, as TRL computes at its defaults. Attention keeps nothing that
grows faster than the length on any side, so memory is a line; the length at 8 GiB is read off the line through the
measured points, not run: attention alone would take hours there. Of each length the highest peak of all rounds counts:
where a system takes pages away from a process that waits for a processor, its peak looks lower than it is, never
higher. Results go to benchmarks/results/longest.json; with --go-on lengths that stand there are not measured again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import common
from instruction_tuning import RANK, RATE, VOCABULARY, shape
from method_sides import WRITER

ROOM = 8 << 30  # bytes
SIDES = ("ours, blocks run again", "ours", "peft, checkpointing, bfloat16", "peft")


def model_of(length: int) -> Any:
    """Build the model with random weights."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, max_position_embeddings=length, tie_word_embeddings=True, **shape("30M")
    )
    return transformers.LlamaForCausalLM(config)


def ours(work: dict[str, Any]) -> Callable[[Any], Any]:
    """Return what computes a row's gradients, its mean loss being the answer."""
    import torch

    from tunesmith.methods.lora import Lora
    from tunesmith.models.language import LanguageModel
    from tunesmith.models.layout import ragged
    from tunesmith.models.recomputing import recomputing

    core = LanguageModel(model_of(work["length"]).eval())
    delta = Lora(rank=RANK, layers=WRITER).attach(core.seams, "a")
    core.seams.use("a")
    core.again = recomputing(core.seams, core.body) if "again" in work["side"] else None
    optimizer = torch.optim.AdamW(delta.parameters(), lr=RATE)

    def step(row: Any) -> Any:
        batch = ragged([row], learned=[torch.arange(len(row)) > 0])
        weights = torch.full((len(row) - 1,), 1 / (len(row) - 1))
        loss = core.loss(core.before_learned(batch), batch.targets, weights)
        loss.backward()
        optimizer.step()
        return loss

    return step


def theirs(work: dict[str, Any]) -> Callable[[Any], Any]:
    """Return the same of PEFT."""
    import contextlib

    import peft
    import torch

    narrow = "bfloat16" in work["side"]
    config = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=list(WRITER), task_type="CAUSAL_LM")
    model = peft.get_peft_model(model_of(work["length"]), config)
    if narrow:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
    model.train()
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=RATE)

    def step(row: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16) if narrow else contextlib.nullcontext():
            loss = model(input_ids=row[None], labels=row[None], use_cache=False).loss
        loss.backward()
        optimizer.step()
        return loss

    return step


def worker(work: dict[str, Any]) -> dict[str, Any]:
    """Take one step."""
    import torch

    from tunesmith.core.memory import peak_bytes, restart_peak

    step = (ours if work["side"].startswith("ours") else theirs)(work)
    row = torch.randint(VOCABULARY, (work["length"],), generator=torch.Generator().manual_seed(0))
    restart_peak()
    began = time.perf_counter()
    loss = step(row).item()
    seconds = time.perf_counter() - began
    return {"tokens_per_second": work["length"] / seconds, "peak_bytes": peak_bytes(), "loss": loss}


def at_room(found: dict[int, float]) -> tuple[float, float]:
    """Return the bytes of a further token, and the length at which the line through the points meets the room."""
    import numpy as np

    slope, start = np.polyfit(list(found), list(found.values()), 1)
    return float(slope), float((ROOM - start) / slope)


def main() -> None:
    parser = common.turns(common.parser(__doc__))
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 2048, 4096, 8192])
    parser.add_argument("--go-on", action="store_true")
    given = parser.parse_args()
    keys, points = {"tokens_per_second": "tokens/s", "peak_bytes": "MB"}, dict[str, dict[int, float]]()
    for length in given.lengths:
        works = {side: {"side": side, "length": length} for side in SIDES}
        case = f"one row of {length} tokens"
        found = common.kept("longest").get(case) if given.go_on else None
        if found is None:
            found = common.in_turn(__file__, works, keys, given, case)
            common.keep("longest", case, found)
        for side, own in found["ranges"].items():
            points.setdefault(side, {})[length] = own["peak_bytes"][1]
    fitted = dict[str, dict[str, float]]()
    for side, own in points.items():
        slope, length = at_room(own)
        fitted[side] = {"bytes_per_token": slope, "tokens": length}
        print(f"{side}: {slope / 1e3:.0f} kB per token, {length:,.0f} tokens in 8 GiB", flush=True)
    common.keep("longest", "in 8 GiB", fitted)


if __name__ == "__main__":
    common.begin(worker, main)
