"""Kill training at random moments, go on, and compare with a run that was left alone.

    python benchmarks/chaos.py [--kills 50] [--seed 0]

A tiny model trains for a few epochs with a checkpoint every few steps. Each time a process is forked from one that has
everything imported, and struck: by SIGKILL after a random time, by SIGKILL at a random one of its file operations
(before or after an fsync or a rename, so in the midst of a checkpoint, of the report or of the run's folder), or by a
disk that is full from a random file operation on. Then the folder must load, training must go on, and its end must
equal the undisturbed run's: every file but times, and the report, which holds times. The kinds of blow take turns until
so many processes were killed. Results go to benchmarks/results/chaos.json after every blow.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Recipe = dict[str, Any]

TIMES = ("seconds", "training_seconds", "examples_per_second", "peak_memory_bytes", "predicted_peak_memory_bytes")
BLOWS = ("time", "file operation", "full disk")
WORDS = {"time": "SIGKILL after a random time", "file operation": "SIGKILL at a random file operation",
         "full disk": "no space left from a random file operation on"}  # fmt: skip


@contextmanager
def counted(act: Callable[[int], None]) -> Iterator[list[int]]:
    """Call `act` before and after every fsync and rename, with its number."""
    calls, whole = [0], {name: getattr(os, name) for name in ("fsync", "replace")}

    def wrapped(call: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*given: Any, **words: Any) -> Any:
            calls[0] += 1
            act(calls[0])
            found = call(*given, **words)
            calls[0] += 1
            act(calls[0])
            return found

        return instead

    for name, call in whole.items():
        setattr(os, name, wrapped(call))
    try:
        yield calls
    finally:
        for name, call in whole.items():
            setattr(os, name, call)


def die() -> None:
    """End this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


def full() -> None:
    """Fail as a full disk does."""
    raise OSError(28, os.strerror(28))


def forked(work: Callable[[], None], after: float | None = None) -> int:
    """Run something in a process of its own, killed after a time.

    Returns:
        Its status: 0 done, 2 a message for the user, negative the signal that killed it.
    """
    child = os.fork()
    if not child:
        code = 1
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            from tunesmith.core.errors import TunesmithError

            try:
                work()
                code = 0
            except TunesmithError:
                code = 2
        finally:
            os._exit(code)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def files_of(folder: Path) -> dict[str, bytes]:
    """Return what must be the same, times aside."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    summary = {key: value for key, value in json.loads(found.pop("metrics.json")).items() if key not in TIMES}
    for row in summary["table"]:
        row.update(seconds=0, peak_bytes=0)
    for name in ("report.html", "fingerprint.json", "recipe.yaml", "openings.jsonl"):
        found.pop(name, None)
    return {**found, "metrics": json.dumps(summary).encode()}


class Chaos:
    """One recipe, its undisturbed end, and blows against it.

    Args:
        recipe: whose output's name is a prefix.
        seed: of the moments.
    """

    def __init__(self, recipe: Recipe, seed: int) -> None:
        import tunesmith

        self.train = tunesmith.train
        self.load = tunesmith.Run.load
        self.recipe, self.random = recipe, random.Random(seed)
        self.found: dict[str, Counter[str]] = {blow: Counter() for blow in BLOWS}
        self.train(self._named("warm"))  # imports, caches
        began = time.perf_counter()
        with counted(lambda _: None) as calls:
            whole = self.train(self._named("whole"))
        self.seconds, self.operations = time.perf_counter() - began, calls[0]
        self.whole = files_of(whole.folder)

    def _named(self, name: str) -> Recipe:
        return {**self.recipe, "output": f"{self.recipe['output']}-{name}"}

    def strike(self, blow: str) -> None:
        """Strike a run once, let it go on, and compare."""
        recipe = self._named("struck")
        folder, count = Path(recipe["output"]), self.found[blow]
        at = self.random.randint(1, self.operations)

        def act(number: int) -> None:
            if blow == "file operation" and number == at:
                die()
            elif blow == "full disk" and number >= at:
                full()

        def work() -> None:
            with counted(act):
                self.train(recipe, resume=True)

        status = forked(work, self.random.uniform(0, self.seconds) if blow == "time" else None)
        count["blows"] += 1
        count["killed" if status == -signal.SIGKILL else "refused" if status == 2 else "survived"] += 1
        count[self._state(folder)] += 1
        count["resumes"] += status != 0
        ended = forked(lambda: self.train(recipe, resume=True) and None)
        differ = ended != 0 or files_of(folder) != self.whole
        count["differences"] += differ
        if differ and "--keep" in sys.argv:
            raise SystemExit(f"{blow} at {at}: see {folder} (status {status}, then {ended})")
        left = [one.name for one in folder.parent.iterdir() if one.name.startswith(f".{folder.name}")]
        count["left over"] += len(left) + sum(one.name.startswith(".") for one in folder.iterdir())
        shutil.rmtree(folder)

    def _state(self, folder: Path) -> str:
        """Load what the blow left: nothing yet, an unfinished run, or a finished one."""
        if not folder.exists() or not [one for one in folder.iterdir() if not one.name.startswith(".")]:
            return "nothing yet"
        run = self.load(folder)
        return "unfinished" if run.unfinished else "finished"


def recipe_of(folder: Path) -> Recipe:
    """Write a tiny model and its data."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.conftest import TEXTS, save_tiny_bert, write_csv

    (folder / "model").mkdir(parents=True)
    rows = [(f"{text} {extra}", label) for label, texts in TEXTS.items() for text in texts for extra in "abcde"]
    write_csv(folder / "train.csv", rows)
    return {
        "model": str(save_tiny_bert(folder / "model", seed=0)),
        "data": {"train": str(folder / "train.csv"), "validation": 0.2, "test": 0.2},
        "method": {"name": "lora", "rank": 4, "dropout": 0.1},
        "training": {"epochs": 2, "batch_size": 8, "learning_rate": 5e-3, "tokens_per_pass": 40,
                     "checkpoint_every_steps": 2},
        "evaluation": {"resamples": 100, "baselines": False},
        "output": str(folder / "run"),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="stop at the first difference and keep its folder")
    words = parser.parse_args()
    import torch

    import common

    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    os.environ["TUNESMITH_CACHE"] = str(folder / "cache")
    chaos = Chaos(recipe_of(folder), words.seed)
    number = 0
    while (killed := sum(count["killed"] for count in chaos.found.values())) < words.kills:
        chaos.strike(BLOWS[number % len(BLOWS)])
        number += 1
        blows = {WORDS[blow]: dict(count) for blow, count in chaos.found.items()}
        print(f"blow {number}, {killed} of {words.kills} kills before it", blows, flush=True)
        result = {"seed": words.seed, "operations": chaos.operations, "blows": blows}
        (common.RESULTS / "chaos.json").write_text(json.dumps(result, indent=2) + "\n")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
