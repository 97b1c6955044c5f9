"""BANKING77 with flipped training labels: test accuracy of every loss for labels with mistakes.

    TUNESMITH_DATA=... python benchmarks/noisy_losses.py [--seeds 0 1 2] [--flipped 0.2] [--epochs 6] [--ways ...]

So large a share of the training labels, drawn by the seed, is replaced by another label, drawn evenly; the test file is
as published. MiniLM, LoRA of rank 8; the last epoch counts. Results go to benchmarks/results/noisy_losses.json.
"""

from __future__ import annotations

import random
from typing import Any

import banking77
import common

HELD = 2  # rows per label, of those flipped too
WAYS: dict[str, dict[str, Any]] = {
    "cross-entropy": {},
    "label smoothing 0.1": {"training": {"label_smoothing": 0.1}},
    "symmetric, 6 and 0.1": {"task": {"losses": [{"name": "symmetric-cross-entropy", "alpha": 6.0, "beta": 0.1}]}},
    "symmetric, 0.1 and 1": {"task": {"losses": [{"name": "symmetric-cross-entropy", "alpha": 0.1, "beta": 1.0}]}},
    "generalised, q 0.7": {"task": {"losses": ["generalised-cross-entropy"]}},
    "bootstrapped, soft": {"task": {"losses": ["bootstrapped"]}},
    "bootstrapped, hard": {"task": {"losses": [{"name": "bootstrapped", "beta": 0.8, "answer": "hard"}]}},
    "focal": {"task": {"losses": ["focal"]}},
}


def flipped(share: float, seed: int, labels: int) -> tuple[banking77.Rows, banking77.Rows, banking77.Rows]:
    """Return training, held-out and test rows."""
    draw = random.Random(seed)
    found, test = banking77.rows("train"), banking77.rows("test")
    names = draw.sample(sorted({label for _, label in found}), labels)
    found = [row for row in found if row[1] in names]
    draw.shuffle(found)
    wrong = set(draw.sample(range(len(found)), round(share * len(found))))
    noisy = [
        (text, draw.choice([name for name in names if name != label]) if number in wrong else label)
        for number, (text, label) in enumerate(found)
    ]
    seen = dict.fromkeys(names, 0)
    train, held = banking77.Rows(), banking77.Rows()
    for text, label in noisy:
        seen[label] += 1
        (held if seen[label] <= HELD else train).append((text, label))
    return train, held, [row for row in test if row[1] in names]


def worker(work: dict[str, Any]) -> dict[str, Any]:
    """Train one way with one seed."""
    return banking77.trained(*flipped(work["flipped"], work["seed"], work["labels"]), work)


def main() -> None:
    parser = banking77.reader(__doc__, WAYS)
    parser.add_argument("--flipped", type=float, default=0.2, help="share of the training labels")
    given = parser.parse_args()
    banking77.table("noisy_losses", __file__, given, WAYS, {"flipped": given.flipped})


if __name__ == "__main__":
    common.begin(worker, main)
