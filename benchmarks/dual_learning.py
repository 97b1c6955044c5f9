"""What dual learning gains on a small task: eight intents of BANKING77, five labelled rows each.

    TUNESMITH_DATA=... python benchmarks/dual_learning.py [--threads 1]

MiniLM, LoRA: a classifier of classes and one of attributes (tables/banking_attributes.csv, written by hand),
two networks on halves of the rows, two augmentations; each beside the same run without it. Scored on the eight intents'
rows of the published test split, 320 rows; the last epoch is kept. Nothing was chosen by these scores.
Results go to benchmarks/results/dual_learning.json.
"""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import common
from semi_supervised import write

TABLE = Path(__file__).with_name("tables") / "banking_attributes.csv"
WAYS: dict[str, dict[str, Any]] = {
    "dual-classifier": {"table": str(TABLE)},
    "dual-network": {"views": "halves"},
    "dual-augmentation": {},
}


def worker(work: dict[str, Any]) -> dict[str, Any]:
    """Carry out one recipe."""
    import tunesmith

    with open(TABLE, newline="", encoding="utf-8") as file:
        labels = {row["class"] for row in csv.DictReader(file)}
    data = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, parts in {"train": ["train_5"], "validation": ["valid"], "test": ["test"]}.items():
            found = [row for part in parts for row in zip(*common.banking(part), strict=True) if row[1] in labels]
            data[name] = write(Path(folder) / f"{name}.csv", found)
        run = tunesmith.train(
            {
                "data": {**data, "label": "category", "max_tokens": 64},
                "method": {"name": "lora", "rank": 8},
                "training": {"epochs": 5, "batch_size": 8, "learning_rate": 2e-3, "best": "last"},
                "dual_learning": {"name": work["way"], **WAYS[work["way"]]},
                "evaluation": {"baselines": False, "metrics": ["accuracy", "macro-f1"]},
                "output": f"{folder}/run",
            }
        )
        scores = {split: run.metrics[split]["accuracy"] for split in ("validation", "test")}
        return {"accuracy": scores, "scheme": {**run.summary["scheme"], "table": TABLE.name}}


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    found = {way: common.child(__file__, {"way": way}, given.threads) for way in WAYS}
    for way, run in found.items():
        gain = run["scheme"]["gain"]["test"]["accuracy"]
        print(f"{way}: {run['accuracy']['test']['value']:.4f}, gain {gain['value']:+.4f} "
              f"({gain['low']:+.4f} to {gain['high']:+.4f})")  # fmt: skip
    result = {**found, "machine": common.machine(given.threads)}
    (common.RESULTS / "dual_learning.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    common.begin(worker, main)
