"""Unrelated rows among training rows: how many does the cleaning step outliers find?

    TUNESMITH_DATA=... python benchmarks/outliers.py [--seeds 3] [--share 0.01] [--threads 1]

Lines of Shakespeare's plays with labels drawn evenly are planted among BANKING77's training rows, so many that they are
a share of all. The step judges all rows on MiniLM's frozen features. Found is the share of the planted rows that it
lists (recall), and of the listed rows that were planted (precision); beside it how many rows it lists where none is
planted: these are odd questions, not mistakes, and count against precision all the same. Results go to
benchmarks/results/outliers.json.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np

import banking77
import common
import frozen
from tunesmith.core.registry import components
from tunesmith.data.cleaning.base import Rows

WORDS = 4  # of a planted line at least; shorter ones are names of speakers and the like


def planted(count: int, seed: int) -> np.ndarray:
    """Draw lines and compute their features, (count, D)."""
    from tunesmith.data.tokens import tokenize
    from tunesmith.recipe.loading import load_recipe
    from tunesmith.runs.session import open_session
    from tunesmith.tasks.running import extract_features

    text = (common.place("TUNESMITH_DATA") / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")
    lines = sorted({line for line in text.splitlines() if len(line.split()) >= WORDS})
    session = open_session(load_recipe({"model": "minilm", "data": {"train": "-"}}))
    rows = tokenize(session.tokenizer, random.Random(seed).sample(lines, count), session.max_tokens)
    return np.asarray(extract_features(session.backbone, session.task, rows).numpy())


def worker(work: dict[str, Any]) -> dict[str, Any]:
    """Plant and judge for one seed; None plants nothing."""
    own = frozen.features()["train"]
    names, labels = np.unique([label for _, label in banking77.rows("train")], return_inverse=True)
    count = 0 if work["seed"] is None else round(work["share"] / (1 - work["share"]) * len(own))
    if count:
        own = np.concatenate([own, planted(count, work["seed"])])
        drawn = np.random.default_rng(work["seed"]).integers(0, len(names), count)
        labels = np.concatenate([labels, drawn])
    step = components("cleaning")["outliers"](do="list")
    listed = list(step.judge(Rows([], labels, names.tolist(), 0, lambda: own)))
    caught = sum(row >= len(own) - count for row in listed)
    return {"rows": len(own), "planted": count, "listed": len(listed), "caught": caught}


def main() -> None:
    """Measure what the command line asks for."""
    parser = common.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.01)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    frozen.features()
    runs = [common.child(__file__, {"share": given.share, "seed": seed}, given.threads) for seed in range(given.seeds)]
    clean = common.child(__file__, {"share": 0.0, "seed": None}, given.threads)
    for seed, one in enumerate(runs):
        one |= {"recall": one["caught"] / one["planted"], "precision": one["caught"] / one["listed"]}
        print(f"seed {seed}: {one}", flush=True)
    print(f"nothing planted: {clean['listed']} of {clean['rows']:,} rows listed")
    found = {"share": given.share, "seeds": runs, "nothing planted": clean, "machine": common.machine(given.threads)}
    common.keep("outliers", f"banking77, {given.share} planted", found)


if __name__ == "__main__":
    common.begin(worker, main)
