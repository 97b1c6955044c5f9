"""BANKING77 made imbalanced: the macro-F1 of every way to balance.

    TUNESMITH_DATA=... python benchmarks/imbalance.py [--seeds 0 1 2] [--ratio 50] [--ways plain ...] [--lora]

The labels' training rows fall by the same factor from label to label, from 100 to 100 / ratio (Cui et al. 2019); a seed
draws which labels are frequent and which rows stay. The test file is the published one, with 40 rows per label. The
task's head is trained on MiniLM's frozen features (method head-only), which takes seconds per way, and of ensembles
five of them; with --lora LoRA of rank 8 is trained too, which takes minutes per way. The last epoch counts. One table
with intervals is printed; results go to benchmarks/results/imbalance.json.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np

import banking77
import common
import frozen

MOST, HELD = 100, 2  # rows of the most frequent label; held-out rows per label, which only say that training goes on
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "class weights, balanced": {"training": {"class_weights": "balanced"}},
    "class weights, root": {"training": {"class_weights": "root"}},
    "oversampling": {"training": {"balance": "oversample"}},
    "undersampling": {"training": {"balance": "undersample"}},
    "focal": {"task": {"losses": ["focal"]}},
    "focal and balanced weights": {"task": {"losses": ["focal"]}, "training": {"class_weights": "balanced"}},
    "class-balanced": {"task": {"losses": ["class-balanced"]}},
    "class-balanced focal": {"task": {"losses": [{"name": "class-balanced", "gamma": 1.0}]}},
    "logit adjustment": {"task": {"losses": ["logit-adjustment"]}},
    "smote": {"training": {"synthetic": "smote"}},
    "smote, at most 49 per row": {"training": {"synthetic": {"name": "smote", "most": 49.0}}},
    "delta-encoder": {"training": {"synthetic": "delta-encoder"}},
    "mixup": {"training": {"synthetic": "mixup"}},
    "mixup and oversampling": {"training": {"synthetic": "mixup", "balance": "oversample"}},
    "balanced bagging, 2 rows per label": {"ensemble": "balanced-bagging"},
    "balanced bagging, 20 rows per label": {"ensemble": {"name": "balanced-bagging", "rows_per_label": 20}},
    "bagging": {"ensemble": "bagging"},
    "boosting": {"ensemble": "boosting"},
}


def imbalanced(ratio: float, seed: int, labels: int) -> tuple[banking77.Rows, banking77.Rows, banking77.Rows]:
    """Return training, held-out and test rows."""
    draw = random.Random(seed)
    by_label: dict[str, list[str]] = {}
    for text, label in banking77.rows("train"):
        by_label.setdefault(label, []).append(text)
    names = draw.sample(sorted(by_label), labels)
    sizes = [round(MOST * ratio ** -(place / max(1, labels - 1))) for place in range(labels)]
    train, held = banking77.Rows(), banking77.Rows()
    for size in sizes:  # the first of the drawn labels that has so many rows
        label = next(name for name in names if len(by_label[name]) >= size + HELD)
        names.remove(label)
        texts = draw.sample(by_label[label], size + HELD)
        train += [(text, label) for text in texts[:size]]
        held += [(text, label) for text in texts[size:]]
    kept = {label for _, label in train}
    return train, held, [row for row in banking77.rows("test") if row[1] in kept]


def together(
    rows: np.ndarray, labels: np.ndarray, test: np.ndarray, names: list[str], way: dict[str, Any]
) -> np.ndarray:
    """Train an ensemble's heads on features, and put their answers to the test rows together, (rows, C)."""
    from tunesmith.core.seeds import derived
    from tunesmith.recipe.loading import build_component

    given = way["ensemble"]
    name, settings = (given, {}) if isinstance(given, str) else (given["name"], {**given})
    making = build_component("ensembles", name, {key: value for key, value in settings.items() if key != "name"})
    found, weights, seed = np.zeros((len(test), len(names))), np.full(len(labels), 1 / len(labels)), way["seed"]
    for member in range(making.count):
        own = {**way, "seed": seed + member}
        if making.in_turn:
            own["weights"] = weights * len(weights)
            chances = frozen.answers(rows, labels, np.concatenate([rows, test]), names, own)
            right = chances[: len(rows)].argmax(1) == labels
            vote, weights = making.judged(weights, right, len(names))
            found += max(0.0, vote) * np.eye(len(names))[chances[len(rows) :].argmax(1)]
            if vote <= 0 or right.all():
                break
        else:
            drawn = making.rows(labels, np.random.default_rng(derived(seed, f"rows of member {member}")))
            found += frozen.answers(rows[drawn], labels[drawn], test, names, own)
    return found / found.sum(1, keepdims=True)


def headed(work: dict[str, Any]) -> dict[str, Any]:
    """Train the head on frozen features in every way with one seed."""
    inputs = frozen.features()
    labels = {part: [label for _, label in banking77.rows(part)] for part in ("train", "test")}
    names = sorted(set(labels["train"]))[: work["labels"]]
    codes = {part: np.array([names.index(one) if one in names else -1 for one in own]) for part, own in labels.items()}
    rows = frozen.imbalanced(codes["train"], work["ratio"], work["seed"], MOST)
    test = np.flatnonzero(codes["test"] >= 0)
    found = {}
    for name in work["ways"]:
        way = {**WAYS[name], "seed": work["seed"]}
        train = frozen.answers if "ensemble" not in way else together
        chances = train(inputs["train"][rows], codes["train"][rows], inputs["test"][test], names, way)
        found[name] = frozen.scores(chances, codes["test"][test], ["macro-f1", "accuracy"])
    return found


def worker(work: dict[str, Any]) -> dict[str, Any]:
    """Train one way with one seed, or the head in all ways."""
    if "ways" in work:
        return headed(work)
    return banking77.trained(*imbalanced(work["ratio"], work["seed"], work["labels"]), work)


def main() -> None:
    parser = banking77.reader(__doc__, WAYS)
    parser.add_argument("--ratio", type=float, default=50.0, help="rows of the most frequent label over the rarest's")
    parser.add_argument("--lora", action="store_true", help="train LoRA in every way too")
    given = parser.parse_args()
    heads: dict[str, list[dict[str, Any]]] = {}
    for seed in given.seeds:
        work = {"ways": given.ways, "seed": seed, "labels": given.labels, "ratio": given.ratio}
        for way, scores in common.child(__file__, work, given.threads).items():
            heads.setdefault(way, []).append({"seed": seed, "scores": scores})
    table = frozen.summed_up(heads, "macro-f1")
    print(frozen.shown(table, "macro-f1"))
    if not given.no_keep:
        case = f"head on features, ratio {given.ratio}, {given.labels} labels, {len(given.seeds)} seeds"
        common.keep("imbalance", case, {"table": table, "runs": heads, "machine": common.machine(given.threads)})
    if given.lora:
        banking77.table("imbalance", __file__, given, WAYS, {"ratio": given.ratio})


if __name__ == "__main__":
    common.begin(worker, main)
