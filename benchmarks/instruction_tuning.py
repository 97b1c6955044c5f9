"""Instruction tuning against PEFT + TRL's SFTTrainer: useful tokens per second and peak memory, run in turn.

    TUNESMITH_DATA=... python benchmarks/instruction_tuning.py [--rows 96] [--batch 8] [--rounds 3] [--threads 2]
        [--settings gsm8k shared ...] [--sides ours "trl defaults" ...] [--device cpu]

A Llama-shaped model of about 30 million random weights (or of the shape that a setting names) with a byte-level
vocabulary of 8,192 trained on gsm8k's training text. LoRA of rank 8 on every linear map of the blocks. Both sides train
on the same token rows with the same marks of what is learned, the same number of rows per step. TRL's defaults compute
in bfloat16; ours is measured in float32, and with frozen weights multiplied in bfloat16 and in 8 bits
(training.precision).

`gsm8k`: questions and worked answers. `shared`: a template of 256 tokens in front of every question, and the last
number alone as the answer. `template 32` and the like: gsm8k behind a template of so many tokens. `1:1`, `5:1`, `20:1`:
rows of about 256 tokens of gsm8k's text, cut into prompt and answer in this ratio. `135M`, `1B` and so on: gsm8k with a
model of that shape; `packed`: rows of 512 tokens of which 480 are learned. TRL runs with its defaults, and with
each of a few flags that need no FlashAttention; the best of them counts. Useful tokens are those of the rows, padding
left out. Time is the training alone, its first steps left out. With --device cuda the frozen weights are bfloat16, all
sides run in one process, one after the other, and memory is what torch allocated there; `share of peak` counts 4
operations per useful token and number of the blocks' maps (forward, and backward into the input) against --peak.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common

VOCABULARY, RANK, RATE = 8192, 8, 1e-3
DTYPES = {"cpu": "float32", "cuda": "bfloat16"}  # of the frozen weights
FLAGS: dict[str, dict[str, Any]] = {
    "trl defaults": {},
    "trl no checkpointing": {"gradient_checkpointing": False},
    "trl float32": {"bf16": False, "gradient_checkpointing": False},
    "trl float32 by length": {
        "bf16": False, "gradient_checkpointing": False, "train_sampling_strategy": "group_by_length",
    },
}  # fmt: skip
LIGER = {"trl no checkpointing, liger": {"gradient_checkpointing": False, "use_liger_kernel": True}}  # on a GPU
OURS = {"ours": "float32", "ours bfloat16": "bfloat16", "ours int8": "int8", "ours float8": "float8"}  # precision
SIDES = {
    "cpu": [*list(OURS)[:3], *list(FLAGS)[1:], "trl defaults"],  # what others are compared with stands last
    "cuda": ["ours", "ours float8", "trl no checkpointing", *LIGER, "trl defaults"],
}
LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


# The same model and rows for both sides ------------------------------------------------------------------------

SHAPES = {  # width, blocks, heads, heads of keys, feed-forward width
    "30M": (512, 8, 8, 8, 1376),
    "135M": (576, 30, 9, 3, 1536),
    "1B": (2048, 16, 32, 8, 8192),
    "3B": (3072, 28, 24, 8, 8192),
    "8B": (4096, 32, 32, 8, 14336),
}


def shape(name: str) -> dict[str, int]:
    """Return a shape in transformers' words."""
    words = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size")
    return dict(zip(words, SHAPES[name], strict=True))


@dataclass(frozen=True)
class Setting:
    """A model and its rows.

    Args:
        template: tokens that stand in front of every prompt.
        short: whether the last number alone is the answer.
        cut: tokens of prompt and answer where rows are cut from the text; None for gsm8k's own.
        shape: of the model, whose numbers are random.
    """

    template: int = 0
    short: bool = False
    cut: tuple[int, int] | None = None
    shape: str = "30M"


SETTINGS = {
    "gsm8k": Setting(),
    "shared": Setting(template=256, short=True),
    "135M": Setting(shape="135M"),
    "1B": Setting(shape="1B"),
    "3B": Setting(shape="3B"),
    "8B": Setting(shape="8B"),
    **{f"{name} packed": Setting(cut=(32, 480), shape=name) for name in ("135M", "1B", "3B", "8B")},
    "template 32": Setting(template=32),
    "template 128": Setting(template=128),
    "template 512": Setting(template=512),
    "1:1": Setting(cut=(128, 128)),
    "5:1": Setting(cut=(213, 43)),
    "20:1": Setting(cut=(244, 12)),
}


def build(folder: Path, rows: int, setting: str, device: str = "cpu") -> None:
    """Write the model, its tokenizer and the rows into a folder."""
    import torch
    import transformers

    text, chosen = common.place("TUNESMITH_DATA") / "gsm8k" / "train.jsonl", SETTINGS[setting]
    found = [json.loads(line) for line in text.read_text(encoding="utf-8").splitlines()]
    tokenizer = trained_tokenizer(row[key] for row in found for key in row)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=1024, tie_word_embeddings=True, bos_token_id=0,
        eos_token_id=1, **shape(chosen.shape),
    )  # fmt: skip
    with torch.device(device):
        transformers.LlamaForCausalLM(config).to(getattr(torch, DTYPES[device])).save_pretrained(folder)
    with open(folder / "rows.jsonl", "w", encoding="utf-8") as file:
        for prompt, answer in written(found, chosen, tokenizer, rows):
            file.write(json.dumps({"prompt": prompt, "completion": answer}) + "\n")
    words = " ".join(row["question"] for row in found[-40:])
    system = tokenizer.decode(tokenizer(words)["input_ids"][: chosen.template])
    (folder / "system.txt").write_text(system, encoding="utf-8")


def trained_tokenizer(texts: Iterable[str]) -> Any:
    """Train a byte-level tokenizer."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["<s>", "</s>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", model_max_length=1024
    )


def written(found: list[dict[str, str]], setting: Setting, tokenizer: Any, rows: int) -> Iterator[tuple[str, str]]:
    """Give the prompts and answers of a setting."""
    if setting.cut is None:
        for row in found[:rows]:
            yield row["question"], row["answer"].rpartition("#### ")[2] if setting.short else row["answer"]
        return
    before, size = setting.cut[0], sum(setting.cut)
    ids = tokenizer(" ".join(row["answer"] for row in found[: rows * size // 64]))["input_ids"]
    for start in range(0, rows * size, size):
        yield tokenizer.decode(ids[start : start + before]), tokenizer.decode(ids[start + before : start + size])


def family_of(folder: Path, device: str = "cpu") -> Any:
    """Open the model with the rows, as a recipe would."""
    from tunesmith.recipe.loading import load_recipe
    from tunesmith.runs.opening import open_family

    return open_family(
        load_recipe(
            {
                "task": {"name": "instruction-tuning", "answered_rows": 0, "samples": 0},
                "model": {"name": str(folder), "device": device, "dtype": DTYPES[device]},
                "data": {"train": str(folder / "rows.jsonl"), "validation": str(folder / "rows.jsonl")},
                "prompt": {"chat": "plain", "system": (folder / "system.txt").read_text(encoding="utf-8")},
            }
        ),
        None,
    )


# The two sides -------------------------------------------------------------------------------------------------


def ours(work: dict[str, Any]) -> dict[str, Any]:
    """Train LoRA."""
    from tunesmith.methods.lora import Lora

    return in_our_loop(work, Lora(rank=RANK, layers=tuple(LAYERS)), OURS[work["side"]])


def our_trial(work: dict[str, Any], method: Any, precision: str = "float32") -> Any:
    """Open the model and the rows, and attach a delta that is to be trained for one epoch."""
    from tunesmith.core.seeds import derived, seed_everything
    from tunesmith.recipe.schema import TrainingSettings
    from tunesmith.runs.generating import Generating
    from tunesmith.tasks.tuned import Tuned
    from tunesmith.training.preflight import check
    from tunesmith.training.trial import Trial

    family: Generating = family_of(Path(work["folder"]), work.get("device", "cpu"))
    split, backbone, task = family.corpus.splits["train"], family.session.backbone, family.session.task
    seed_everything(derived(0, "weights"))
    tuned = Tuned(backbone, task, task.head(0, 0), method.attach(backbone.seams, "a"))
    settings = TrainingSettings(
        epochs=1, batch_size=work["batch"], learning_rate=RATE, best="last", precision=precision
    )
    trial = Trial(tuned, split, settings, 0, lambda: {"validation loss": 0.0}, ("last", False), method)
    check(trial)  # as before every run: it settles how many tokens go through at once
    return trial


def in_our_loop(work: dict[str, Any], method: Any, precision: str = "float32") -> dict[str, Any]:
    """Train one epoch with the product's loop."""
    from tunesmith.training.loop import Loop

    trial = our_trial(work, method, precision)
    times: list[float] = []
    peak = common.peak(work)
    Loop([trial]).fit(lambda *_: times.append(time.perf_counter()))
    tokens = int(trial.split.tokens.lengths.sum())
    return report(times, tokens, work, trial.trained.losses, peak())


def theirs(work: dict[str, Any]) -> dict[str, Any]:
    """Train one epoch with PEFT and TRL."""
    import datasets
    import peft
    import transformers
    import trl

    folder, device = Path(work["folder"]), work.get("device", "cpu")
    split = family_of(folder).corpus.splits["train"]
    rows = [
        {"input_ids": split.tokens[n].tolist(), "completion_mask": split.tokens.learned(n).astype(int).tolist()}
        for n in range(len(split.tokens))
    ]
    times: list[float] = []

    class Clock(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            times.append(time.perf_counter())

    settings = trl.SFTConfig(
        output_dir=str(folder / "trl"), use_cpu=device == "cpu", num_train_epochs=1, max_length=1024, report_to=[],
        per_device_train_batch_size=work["batch"], learning_rate=RATE, lr_scheduler_type="cosine", disable_tqdm=True,
        save_strategy="no", logging_steps=1, completion_only_loss=True, **{**FLAGS, **LIGER}[work["side"]],
    )  # fmt: skip
    trainer = trl.SFTTrainer(
        transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[device]), args=settings,
        train_dataset=datasets.Dataset.from_list(rows), callbacks=[Clock()],
        processing_class=transformers.AutoTokenizer.from_pretrained(folder),
        peft_config=peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=LAYERS, task_type="CAUSAL_LM"),
    )  # fmt: skip
    peak = common.peak(work)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return report(times, int(split.tokens.lengths.sum()), work, losses, peak())


def report(times: list[float], tokens: int, work: dict[str, Any], losses: list[float], peak: int) -> dict[str, Any]:
    """Word a side's figures; the first step warms up, on a GPU the first three."""
    first = 2 if work.get("device") == "cuda" else 0
    seconds = (times[-1] - times[first]) * len(times) / (len(times) - 1 - first)
    maps = block_numbers(work.get("shape", "30M"))
    return {
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "peak_bytes": peak,
        "share_of_peak": 4 * maps * tokens / seconds / (work.get("peak") or float("inf")),
        "first_loss": losses[0],
        "last_loss": statistics.mean(losses[-3:]),
        "steps": len(times),
        "tokens": tokens,
    }


def block_numbers(name: str) -> int:
    """Count the numbers in the linear maps of a shape's blocks."""
    width, blocks, heads, shared, inner = SHAPES[name]
    return blocks * (2 * width * width + 2 * width * width * shared // heads + 3 * width * inner)


# Running -------------------------------------------------------------------------------------------------------


KEYS = {
    "tokens_per_second": "tokens/s", "peak_bytes": "MB", "seconds": "s", "first_loss": "nats", "last_loss": "nats",
    "share_of_peak": "of peak",
}  # fmt: skip


def measure(setting: str, given: argparse.Namespace) -> dict[str, Any]:
    """Run all sides in turn, several rounds."""
    on_cpu, peak = given.device == "cpu", given.peak * 1e12
    with tempfile.TemporaryDirectory(dir=given.scratch) as scratch:
        build(Path(scratch), given.rows, setting, given.device)
        work = {"folder": scratch, "batch": given.batch, "device": given.device}
        work |= {"shape": SETTINGS[setting].shape, "peak": peak}
        works = {side: {**work, "side": side} for side in given.sides or SIDES[given.device]}
        works |= {side: {**works[side], "apart": True} for side in works if side in LIGER}
        return common.in_turn(__file__, works, KEYS, given, setting, None if on_cpu else worker)


def worded(setting: str, medians: dict[str, dict[str, float]]) -> str:
    """Say how ours stands to TRL's defaults and to the best flags."""
    theirs = [side for side in medians if side not in OURS]
    if not theirs:
        return f"{setting}: {medians}"
    best = max(theirs, key=lambda side: medians[side]["tokens_per_second"])
    parts = [
        f"{own}: {medians[own]['tokens_per_second'] / medians[side]['tokens_per_second']:.2f}x the speed and "
        f"{medians[own]['peak_bytes'] / medians[side]['peak_bytes']:.2f}x the memory of {side}"
        for own in medians
        if own in OURS
        for side in dict.fromkeys([theirs[-1], best])
    ]
    return f"{setting}: {'; '.join(parts)}"


def worker(work: dict[str, Any]) -> dict[str, Any]:
    """Train one side."""
    return ours(work) if work["side"] in OURS else theirs(work)


def main() -> None:
    """Read the command line."""
    parser = common.parser(__doc__)
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--device", choices=DTYPES, default="cpu")
    common.turns(parser)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=["gsm8k", "shared"])
    parser.add_argument("--sides", nargs="+", choices=[*OURS, *FLAGS, *LIGER], help="all of the device when left out")
    parser.add_argument("--peak", type=float, default=0.0, help="of the GPU in bfloat16, 10^12 operations per second")
    parser.add_argument("--scratch", help="folder for the models that are made")
    given = parser.parse_args()
    for setting in given.settings:
        found = measure(setting, given)
        common.keep("instruction_tuning", setting if given.device == "cpu" else f"{setting} on a GPU", found)
        print(worded(setting, found["medians"]))


if __name__ == "__main__":
    common.begin(worker, main)
