"""stories260K to Shakespeare: perplexity of held-out text, untuned, with LoRA, with full tuning, and with PEFT + TRL.

    TUNESMITH_DATA=... TUNESMITH_MODELS=... python benchmarks/stories.py [--threads 2] [--sides lora full trl]

One epoch over the first nine tenths of tinyshakespeare in rows of 128 tokens, 32 rows per step, cosine schedule with
6 % warm-up; LoRA of rank 8 on every linear map of the blocks at 3e-3, full tuning at 1e-3. TRL's SFTTrainer gets the
same token rows, steps, rate, schedule, weight decay and clipping. Perplexity is over all learned tokens of the last
tenth.
"""

from __future__ import annotations

import json
import math
import tempfile
from typing import Any

import common

PATH = common.RESULTS / "stories.json"
LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RATES = {"lora": 3e-3, "full": 1e-3, "trl": 3e-3}


def recipe(method: str, output: str) -> dict[str, Any]:
    """Return the recipe of both sides' rows and settings."""
    return {
        "task": {"name": "text-generation", "samples": 0},
        "model": str(common.stories()),
        "data": {"train": str(common.place("TUNESMITH_DATA") / "tinyshakespeare" / "input.txt"), "max_tokens": 128},
        "method": {"name": "lora", "rank": 8, "layers": LAYERS} if method != "full" else "full",
        "training": {"epochs": 1, "batch_size": 32, "learning_rate": RATES[method], "best": "last"},
        "output": output,
    }


def ours(method: str) -> dict[str, Any]:
    """Train with the product."""
    import tunesmith

    with tempfile.TemporaryDirectory() as scratch:
        found = tunesmith.train(recipe(method, f"{scratch}/run")).summary
    scores = {"untuned": found["baselines"]["untuned"]["validation"], method: found["metrics"]["validation"]}
    return {name: score["perplexity"] for name, score in scores.items()} | {"steps": found["steps"]}


def trl() -> dict[str, Any]:
    """Train with PEFT and TRL; score with transformers alone."""
    import datasets
    import peft
    import torch
    import transformers
    from trl import SFTConfig, SFTTrainer

    from tunesmith.recipe.loading import load_recipe
    from tunesmith.runs.opening import open_family

    splits = open_family(load_recipe(recipe("trl", "unused")), None).corpus.splits
    train = splits["train"].tokens
    rows = [{"input_ids": train[number].tolist()} for number in range(len(train))]
    with tempfile.TemporaryDirectory() as scratch:
        settings = SFTConfig(
            output_dir=scratch, use_cpu=True, per_device_train_batch_size=32, num_train_epochs=1, report_to=[],
            learning_rate=RATES["trl"], lr_scheduler_type="cosine", warmup_steps=0.06, weight_decay=0.01,
            max_grad_norm=1.0, max_length=None, bf16=False, gradient_checkpointing=False, save_strategy="no",
            disable_tqdm=True,
        )  # fmt: skip
        trainer = SFTTrainer(
            transformers.AutoModelForCausalLM.from_pretrained(common.stories()), args=settings,
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=transformers.AutoTokenizer.from_pretrained(common.stories()),
            peft_config=peft.LoraConfig(r=8, lora_alpha=16, target_modules=LAYERS, task_type="CAUSAL_LM"),
        )  # fmt: skip
        trainer.train()
    model, held = trainer.model.eval(), splits["validation"].tokens
    nats = tokens = 0.0
    with torch.no_grad():
        for number in range(len(held)):
            ids = torch.from_numpy(held[number])[None]
            losses = torch.nn.functional.cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="sum")
            nats, tokens = nats + losses.item(), tokens + ids.shape[1] - 1
    return {"trl": {"value": math.exp(nats / tokens)}, "steps": trainer.state.global_step}


def worker(work: dict[str, Any]) -> dict[str, Any]:
    """Train one side."""
    return trl() if work["side"] == "trl" else ours(work["side"])


def main() -> None:
    """Read the command line."""
    parser = common.parser(__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sides", nargs="+", choices=RATES, default=list(RATES))
    given = parser.parse_args()
    found: dict[str, Any] = json.loads(PATH.read_text()) if PATH.exists() else {}
    for side in given.sides:
        found[side] = common.child(__file__, {"side": side}, given.threads)
        print(side, found[side], flush=True)
    found["machine"] = common.machine(given.threads)
    PATH.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    common.begin(worker, main)
