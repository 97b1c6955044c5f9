"""What unlabelled rows gain on five labelled rows per intent: self-training and consistency training.

    TUNESMITH_DATA=... python benchmarks/semi_supervised.py [--seeds 1] [--threads 1]

BANKING77's fixed 5-shot split on MiniLM, LoRA. Unlabelled are the texts of the whole training file, its labels not read
to learn from; rows that also stand among the labelled, validation or test rows are left out by the run itself. The
validation rows are the first two of each label of the published ones. Every run trains the same recipe without the
unlabelled file beside itself and says the gain with a paired bootstrap interval, on the test rows. Nothing was chosen
by these scores. Results go to benchmarks/results/semi_supervised.json.
"""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import common

TRAINING = {"epochs": 5, "batch_size": 32, "learning_rate": 2e-3}
WAYS: dict[str, dict[str, Any]] = {
    "self-training": {"section": "semi_supervised", "rounds": 1, "balance": "count", "per_class": 10, "threshold": 0.5},
    "consistency": {"section": "semi_supervised", "ratio": 2, "threshold": 0.5},
}


def write(path: Path, rows: list[tuple[str, str]]) -> str:
    """Write rows as a CSV file."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "category"), *rows])
    return str(path)


def files(folder: Path) -> dict[str, str]:
    """Write the labelled, validation, test and unlabelled rows."""
    seen: dict[str, int] = {}
    few = []
    for text, label in zip(*common.banking("valid"), strict=True):
        seen[label] = seen.get(label, 0) + 1
        if seen[label] <= 2:
            few.append((text, label))
    with open(common.place("TUNESMITH_DATA") / "banking77" / "train.csv", newline="", encoding="utf-8") as file:
        whole = [(row["text"], row["category"]) for row in csv.DictReader(file)]
    parts = {
        "train": list(zip(*common.banking("train_5"), strict=True)),
        "validation": few,
        "test": list(zip(*common.banking("test"), strict=True)),
        "unlabelled": whole,
    }
    return {name: write(folder / f"{name}.csv", rows) for name, rows in parts.items()}


def worker(work: dict[str, Any]) -> dict[str, Any]:
    """Carry out one recipe."""
    import tunesmith

    settings = dict(WAYS[work["way"]])
    section = settings.pop("section")
    with tempfile.TemporaryDirectory() as folder:
        data = files(Path(folder))
        if not work["unlabelled"]:
            del data["unlabelled"]
        run = tunesmith.train(
            {
                "data": {**data, "label": "category", "max_tokens": 64},
                "method": {"name": "lora", "rank": 8},
                "training": {**TRAINING, **work.get("training", {})},
                section: {"name": work["way"], "audit": work["unlabelled"], **settings, **work.get("settings", {})},
                "evaluation": {"baselines": False, "metrics": ["accuracy", "macro-f1"]},
                "seed": work["seed"],
                "output": f"{folder}/run",
            }
        )
        scores = {split: run.metrics[split]["accuracy"] for split in ("validation", "test")}
        return {"accuracy": scores, "scheme": run.summary["scheme"]}


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    found: dict[str, Any] = {}
    for way in WAYS:
        runs = [
            common.child(__file__, {"way": way, "seed": seed, "unlabelled": True}, given.threads)
            for seed in range(given.seeds)
        ]
        for run in runs:
            gain = run["scheme"]["gain"]["test"]["accuracy"]
            print(f"{way}: {run['accuracy']['test']['value']:.4f}, gain {gain['value']:+.4f} "
                  f"({gain['low']:+.4f} to {gain['high']:+.4f})", flush=True)  # fmt: skip
        found[way] = {"settings": WAYS[way], "runs": runs}
    found["machine"] = common.machine(given.threads)
    (common.RESULTS / "semi_supervised.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    common.begin(worker, main)
