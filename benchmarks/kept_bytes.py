"""Bytes that a forward pass keeps for its backward pass, per useful token: ours, PEFT's, and the closed form.

    TUNESMITH_DATA=... python benchmarks/kept_bytes.py [--threads 2]

LoRA of rank 8 on every linear map of the blocks, float32, one pass of 8 rows of gsm8k through a Llama of 30 million
random numbers. Each storage counts once; weights do not count, nor does what is computed again. PEFT reads the rows
padded, with transformers' own loss, without recomputation and with it. The closed form of a Llama layer is 6 hidden and
2 feed-forward widths, the rank of each map, a number per norm and one per head, in 4 bytes each; it leaves out the loss
and the factors of maps that run together. The counts are the same on every machine but for zeros below some products.

Results go to benchmarks/results/kept_bytes.json.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import common
import instruction_tuning

ROWS, RANK, HEADS, NORMS = 8, instruction_tuning.RANK, 8, 2
SIDES = ("ours", "peft, padded", "peft, padded, checkpointing")


def closed_form() -> int:
    """Return the bytes per token that the blocks need."""
    width, blocks, _, _, inner = instruction_tuning.SHAPES["30M"]
    return 4 * blocks * (6 * width + 2 * inner + 7 * RANK + NORMS + HEADS)


def ours(folder: Path) -> tuple[int, int]:
    """Count what our pass keeps, and its tokens."""
    from tunesmith.methods.lora import Lora
    from tunesmith.models.keeping import counted

    work = {"folder": str(folder), "batch": ROWS}
    trial = instruction_tuning.our_trial(work, Lora(rank=RANK, layers=tuple(instruction_tuning.LAYERS)))
    batch, model = trial.batch(list(range(ROWS))), trial.tuned.backbone.model
    trial.tuned.train(True)
    trial.tuned.backbone.seams.use(trial.name)
    with counted([*model.parameters(), *model.buffers(), *trial.tuned.parameters()]) as found:
        outputs = trial.tuned.task.read(trial.tuned.backbone, batch)
    assert outputs.requires_grad
    return found.bytes + outputs.nbytes, batch.layout.tokens  # the loss keeps the gradient of these states, no logits


def theirs(folder: Path, checkpointing: bool) -> tuple[int, int]:
    """Count what PEFT's pass over the padded rows keeps, and its tokens without padding."""
    import peft
    import torch
    import transformers

    from tunesmith.models.keeping import counted

    split = instruction_tuning.family_of(folder).corpus.splits["train"]
    rows = [torch.as_tensor(split.tokens[number]) for number in range(ROWS)]
    marks = [torch.as_tensor(split.tokens.learned(number)) for number in range(ROWS)]
    base = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    config = peft.LoraConfig(r=RANK, target_modules=instruction_tuning.LAYERS, task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, config).train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    together = torch.nn.utils.rnn.pad_sequence
    ids, learned = together(rows, True), together(marks, True)
    mask = together([torch.ones_like(row) for row in rows], True)
    labels = ids.masked_fill(~learned.bool(), -100)
    with counted([*model.parameters(), *model.buffers()]) as found:
        loss = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
    assert loss.requires_grad
    return found.bytes, int(mask.sum())


def worker(work: dict[str, Any]) -> dict[str, Any]:
    """Count one side."""
    with tempfile.TemporaryDirectory() as scratch:
        instruction_tuning.build(Path(scratch), ROWS, "gsm8k")
        side = work["side"]
        kept, tokens = ours(Path(scratch)) if side == "ours" else theirs(Path(scratch), "checkpointing" in side)
    return {"bytes_per_token": kept / tokens, "tokens": tokens}


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    sides = {side: common.child(__file__, {"side": side}, given.threads) for side in SIDES}
    for side, found in sides.items():
        print(f"{side}: {found['bytes_per_token']:,.0f} bytes per token; closed form {closed_form():,}", flush=True)
    case = {"closed_form": closed_form(), "sides": sides, "machine": common.machine(given.threads)}
    common.keep("kept_bytes", "gsm8k, Llama of 30 million numbers, 8 rows", case)


if __name__ == "__main__":
    common.begin(worker, main)
