"""Flipped labels: how many does cleaning find, and what does a run gain by it?

    TUNESMITH_DATA=... python benchmarks/label_noise.py [--seeds 3] [--share 0.2] [--threads 2] [--tune] [--epochs 3]
        [--no-probe] [--limit ROWS]

A share of BANKING77's training labels is flipped to another label, drawn evenly. The step label-errors judges them on
MiniLM's frozen features, which are computed once and kept beside the results of other runs (TUNESMITH_CACHE). Found is
the share of the flipped rows that it lists (recall), and of the listed rows that were flipped (precision). Beside it
the test accuracy of logistic regression on the same features with the given labels, without the listed rows, with the
suggested labels, and with the true labels; and that of the task's head on these features (method head-only) with
nothing, a robust loss, cleaning, lighter rows, and both. One table is printed with intervals. With --tune the README's
recipe is trained on the given labels, without the listed rows and with the suggested ones. Results go to
benchmarks/results/label_noise.json.
"""

from __future__ import annotations

import csv
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import common
import frozen
from encoder_classification import write
from tunesmith.core.registry import components
from tunesmith.data.cleaning.base import Rows

CLEANINGS: dict[str, list[Any]] = {
    "given": [],
    "dropped": [{"name": "label-errors"}],
    "corrected": [{"name": "label-errors", "do": "correct"}],
}

ROBUST = {"task": {"losses": ["generalised-cross-entropy"]}}
WAYS: dict[str, tuple[str, dict[str, Any]]] = {  # which rows, and how the head learns them
    "nothing": ("given", {}),
    "robust loss (generalised)": ("given", ROBUST),
    "cleaning: dropped": ("dropped", {}),
    "cleaning: corrected": ("corrected", {}),
    "cleaning: lighter rows": ("weighted", {}),
    "robust loss and dropped": ("dropped", ROBUST),
    "robust loss and lighter rows": ("weighted", ROBUST),
    "true labels": ("true", {}),
}


def banking(part: str) -> tuple[list[str], list[str]]:
    """Return texts and labels of a published split."""
    with open(common.place("TUNESMITH_DATA") / "banking77" / f"{part}.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["text"] for row in rows], [row["category"] for row in rows]


def flipped(right: np.ndarray, classes: int, share: float, seed: int) -> np.ndarray:
    """Give a share of the rows another label."""
    draw = np.random.default_rng(seed)
    wrong = draw.random(len(right)) < share
    return np.where(wrong, (right + draw.integers(1, classes, len(right))) % classes, right)


def probe(inputs: dict[str, np.ndarray], rows: np.ndarray, labels: np.ndarray, right: np.ndarray) -> float:
    """Score logistic regression, as the baseline linear-probe fits it, on the test rows."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    scaled = {name: part / np.linalg.norm(part, axis=1, keepdims=True) * part.shape[1] ** 0.5
              for name, part in inputs.items()}  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(max_iter=100).fit(scaled["train"][rows], labels[rows])
    return float((model.predict(scaled["test"]) == right).mean())


def found_by_cleaning(work: dict[str, Any]) -> dict[str, Any]:
    """Flip, judge and score for one seed."""
    inputs, (_, texts), (_, tests) = frozen.features(), banking("train"), banking("test")
    names = sorted(set(texts))
    right, test = (np.array([names.index(label) for label in some]) for some in (texts, tests))
    if work["limit"]:
        chosen = np.random.default_rng(0).permutation(len(right))[: work["limit"]]
        inputs["train"], right = inputs["train"][chosen], right[chosen]
    given = flipped(right, len(names), work["share"], work["seed"])
    step = components("cleaning")["label-errors"](do="correct")
    seen = Rows([], given, names, work["seed"], lambda: inputs["train"])
    verdicts = step.judge(seen)
    listed = np.array(sorted(verdicts))
    wrong, every = given != right, np.arange(len(given))
    corrected = given.copy()
    corrected[listed] = [verdicts[row].label for row in listed]
    found = {
        "flipped": int(wrong.sum()),
        "listed": len(listed),
        "recall": float(wrong[listed].sum() / wrong.sum()),
        "precision": float(wrong[listed].mean()),
        "suggested_right": float((corrected[listed] == right[listed])[wrong[listed]].mean()),
    }
    if work["probe"]:
        kept = np.setdiff1d(every, listed)
        found["probe"] = {
            "given": probe(inputs, every, given, test),
            "dropped": probe(inputs, kept, given, test),
            "corrected": probe(inputs, every, corrected, test),
            "true": probe(inputs, every, right, test),
        }
    lighter = {row: one.weight for row, one in components("cleaning")["label-errors"](do="weight").judge(seen).items()}
    weights = np.array([lighter.get(int(row), 1.0) for row in every])
    data = {
        "given": (every, given, None),
        "dropped": (np.setdiff1d(every, listed), given, None),
        "corrected": (every, corrected, None),
        "weighted": (every, given, weights),
        "true": (every, right, None),
    }
    found["head"] = {}
    for name, (which, how) in WAYS.items():
        rows, labels, own = data[which]
        way = {**how, "seed": work["seed"], "weights": None if own is None else own[rows]}
        chances = frozen.answers(inputs["train"][rows], labels[rows], inputs["test"], names, way)
        found["head"][name] = frozen.scores(chances, test, ["accuracy"])
    return found


def tuned(work: dict[str, Any]) -> dict[str, Any]:
    """Train the README's recipe on flipped labels, with one way of cleaning."""
    import tunesmith

    texts, labels = banking("train")
    names = sorted(set(labels))
    codes = flipped(np.array([names.index(label) for label in labels]), len(names), work["share"], work["seed"])
    rows = {"train": list(zip(texts, [names[code] for code in codes], strict=True)),
            "test": list(zip(*banking("test"), strict=True))}  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        lines = {name: [{"text": text, "category": label} for text, label in some] for name, some in rows.items()}
        files = {name: str(write(Path(place) / f"{name}.csv", some)) for name, some in lines.items()}
        run = tunesmith.train({
            "data": {**files, "label": "category", "cleaning": CLEANINGS[work["cleaning"]]},
            "method": {"name": "lora", "rank": 8},
            "training": {"epochs": work["epochs"], "learning_rate": 2e-3},
            "evaluation": {"baselines": False},
            "seed": work["seed"],
            "output": f"{place}/run",
        })  # fmt: skip
        return {"accuracy": run.metrics["test"]["accuracy"]["value"], "cleaning": run.summary["cleaning"]}


def worker(work: dict[str, Any]) -> dict[str, Any]:
    """Do one piece of work."""
    return tuned(work) if "cleaning" in work else found_by_cleaning(work)


def main() -> None:
    """Measure what the command line asks for."""
    parser = common.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--limit", type=int, default=0, help="only so many training rows, to try the script; no file")
    parser.add_argument("--no-probe", action="store_true", help="leave out the accuracy of logistic regression")
    parser.add_argument("--tune", action="store_true", help="train the README's recipe too")
    given = parser.parse_args()
    machine = common.machine(given.threads)
    heads: dict[str, list[dict[str, Any]]] = {}
    for seed in range(given.seeds):
        work = {"share": given.share, "seed": seed, "epochs": given.epochs, "probe": not given.no_probe,
                "limit": given.limit}  # fmt: skip
        found = common.child(__file__, work, given.threads)
        if given.tune:
            found["tuned"] = {name: common.child(__file__, {**work, "cleaning": name}, given.threads)
                              for name in CLEANINGS}  # fmt: skip
        print(f"seed {seed}: {found}", flush=True)
        for way, scores in found["head"].items():
            heads.setdefault(way, []).append({"scores": scores})
        if not given.limit:
            common.keep("label_noise", f"banking77, {given.share} flipped, seed {seed}", {"machine": machine, **found})
    table = frozen.summed_up(heads, "accuracy")
    print(frozen.shown(table, "accuracy"))
    if not given.limit:
        common.keep("label_noise", f"banking77, {given.share} flipped, head on features, {given.seeds} seeds", table)


if __name__ == "__main__":
    common.begin(worker, main)
