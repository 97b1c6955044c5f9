"""Kill a study of settings at random moments, go on, and compare with a study that was left alone.

    python benchmarks/killed_study.py [--kills 10] [--strategies tpe asha] [--seed 0] [--trials 60]

A tiny random BERT and sixty short texts. Each time a process is forked from one that has everything imported, and
killed by SIGKILL after a random share of the time that the whole study takes; the next one goes on with --resume. In
the end the trials (settings, states, scores after every epoch) and the best run's scores must be those of the study
that was never stopped. Results go to benchmarks/results/killed_study.json.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common

SHORTEST, LONGEST = 0.02, 0.35  # a process lives so long, as a share of the whole study's time


def forked(work: Callable[[], None], after: float | None = None) -> bool:
    """Run something in a process of its own, killed after a time; say whether it came to its end."""
    child = os.fork()
    if not child:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 (whatever it is, the child ends here)
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    until = time.monotonic() + (float("inf") if after is None else after)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            break
        time.sleep(0.002)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit("the study failed instead of being killed; see above")
    return os.WIFEXITED(status)


def recipe_of(folder: Path) -> dict[str, Any]:
    """Write a tiny model and tiny data; return the recipe."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tests.conftest import TEXTS, save_tiny_bert, write_csv

    save_tiny_bert(folder, seed=0)
    rows = [(f"{text} {extra}", label) for label, texts in TEXTS.items() for text in texts for extra in "abcde"]
    write_csv(folder / "train.csv", rows)
    write_csv(folder / "test.csv", [(f"well {text}", label) for label, texts in TEXTS.items() for text in texts])
    return {
        "model": str(folder),
        "data": {"train": str(folder / "train.csv"), "test": str(folder / "test.csv"), "validation": 0.25},
        "method": {"name": "lora", "rank": [2, 4, 8]},
        "training": {
            "epochs": 4, "batch_size": 8, "learning_rate": {"low": 1e-4, "high": 2e-2, "log": True},
            "label_smoothing": [0.0, 0.1],
        },
        "evaluation": {"resamples": 100, "baselines": False},
    }  # fmt: skip


def read(folder: Path) -> dict[str, Any]:
    """Return what must not depend on kills."""
    found = json.loads((folder / "result.json").read_text())
    trials = [
        {key: one[key] for key in ("number", "overrides", "reports")}
        | {key: one["outcome"][key] for key in ("state", "value", "loss", "best_epoch")}
        for one in json.loads((folder / "trials.json").read_text())
    ]
    return {"best": found["best"], "overrides": found["overrides"], "score": found["score"], "trials": trials}


def tried(folder: Path) -> int:
    """Count the trials that a killed study has kept."""
    import sqlite3

    if not (folder / "study.db").exists():
        return 0
    with sqlite3.connect(folder / "study.db") as file:
        return int(
            file.execute("select count(*) from trials where state in ('COMPLETE', 'PRUNED', 'FAIL')").fetchone()[0]
        )


def strike(strategy: str, folder: Path, given: Any) -> dict[str, Any]:
    """Carry a study out whole, and another one with kills between; compare them."""
    import tunesmith

    recipe, draw = recipe_of(folder), random.Random(f"{given.seed} {strategy}")

    def study(name: str) -> Callable[[], None]:
        def work() -> None:
            settings: dict[str, Any] = {"strategy_settings": {"startup": 4}} if strategy == "tpe" else {}
            place = folder / name
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), 1)
            tunesmith.search_settings(
                recipe, [f"output={place}"], trials=given.trials, strategy=strategy, width=3,
                resume=(place / "study.db").exists(), **settings,
            )  # fmt: skip

        return work

    began = time.monotonic()
    forked(study("whole"))
    seconds = time.monotonic() - began
    moments, longest = list[dict[str, float]](), LONGEST
    while len(moments) < given.kills:
        after = seconds * draw.uniform(SHORTEST, longest)
        if forked(study("killed"), after):  # it came to its end before so many blows: all anew, with shorter lives
            shutil.rmtree(folder / "killed")
            moments, longest = [], 0.7 * longest
            continue
        moments.append({"after_seconds": round(after, 2), "trials_kept": tried(folder / "killed")})
    forked(study("killed"))
    whole, killed = read(folder / "whole"), read(folder / "killed")
    return {
        "kills": moments, "trials": len(whole["trials"]), "seconds_of_the_whole": seconds,
        "same_best_trial": whole["best"] == killed["best"] and whole["overrides"] == killed["overrides"],
        "same_test_score": whole["score"] == killed["score"], "same_trials": whole["trials"] == killed["trials"],
    }  # fmt: skip


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--strategies", nargs="+", default=["tpe", "asha"])
    given = parser.parse_args()
    import torch

    from tunesmith.evaluation import plots

    torch.set_num_threads(1)
    plots._svg = lambda figure: "<svg></svg>"  # pictures would take most of the time
    for strategy in given.strategies:
        with tempfile.TemporaryDirectory() as scratch:
            found = strike(strategy, Path(scratch), given)
        common.keep("killed_study", strategy, {**found, "seed": given.seed, "machine": common.machine(1)})
        kept = ", ".join(str(one["trials_kept"]) for one in found["kills"])
        print(
            f"{strategy}: {len(found['kills'])} kills (trials kept after each: {kept}); the same best trial: "
            f"{found['same_best_trial']}, test score: {found['same_test_score']}, all {found['trials']} trials: "
            f"{found['same_trials']}",
            flush=True,
        )


if __name__ == "__main__":
    main()
