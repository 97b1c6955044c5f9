"""Few-shot intents: the fixed 5- and 10-shot splits of BANKING77 and CLINC150, one general recipe, several seeds.

    TUNESMITH_DATA=... python benchmarks/few_shot_intent.py [--recipe few-shot] [--seeds 5] [--threads 2]
                                                            [--sets BANKING77 CLINC150] [--shots 5 10]
                                                            [--split test] [--keys training.epochs=5 ...] [--go-on]

The recipe is recipes/few-shot.yaml, recipes/few-shot-best.yaml or recipes/few-shot-unlabelled.yaml, the same for every
set; the splits are the published ones, so seeds vary training alone. (The second averages five deltas; its run of seed
n takes the seeds 5n to 5n + 4. The third averages three, and reads the texts of the whole training file without their
labels, as CPFT does for its pre-training.)
`--split valid` is for choosing: nothing may be chosen on test. Each run is a process of its own; its time counts
from the start of the process to the saved and scored run. The table stands beside the published figures, of models
about five times larger. Results on test with the recipe as it stands go to benchmarks/results/few_shot_intent.json
after every run; `--go-on` keeps the seeds that stand there.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import common

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
MEMBERS = {"few-shot-best": 5, "few-shot-unlabelled": 3}
SETS, SHOTS = ("BANKING77", "CLINC150"), (5, 10)
# Accuracy in per cent, from github.com/jianguoz/Few-Shot-Intent-Detection.
PUBLISHED = {
    "RoBERTa + classifier": (74.04, 84.27, 87.99, 91.55),
    "USE + ConveRT": (77.75, 85.19, 90.49, 93.26),
    "DNNC": (80.40, 86.71, 91.02, 93.76),
    "CPFT": (80.86, 87.20, 92.34, 94.18),
    "ICDA (large generator)": (84.01, 89.79, 92.62, 94.84),
}


def rows(dataset: str, part: str) -> list[tuple[str, str]]:
    """Return texts and labels of a part of a data set, as published."""
    folder = common.place("TUNESMITH_DATA") / "few_shot_intent" / dataset / part
    texts, labels = ((folder / name).read_text(encoding="utf-8").splitlines() for name in ("seq.in", "label"))
    return [(text.strip(), label.strip()) for text, label in zip(texts, labels, strict=True)]


def write(path: Path, found: list[tuple[str, str]]) -> str:
    """Write texts and labels as a CSV file."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(found)
    return str(path)


def seeds(work: dict[str, Any]) -> list[str]:
    """Return the keys that give a run its seeds."""
    seed = work["seed"]
    if work["recipe"] == "few-shot":
        return [f"seed={seed}"]
    count = MEMBERS[work["recipe"]]
    members = ", ".join(f"{{seed: {count * seed + one}}}" for one in range(count))
    return [f"seed={count * seed}", f"candidates=[{members}]"]


def unlabelled(dataset: str, folder: Path) -> list[str]:
    """Write the texts of the whole training file; rows that stand in the splits are left out by the run itself."""
    place = common.place("TUNESMITH_DATA")
    if dataset == "CLINC150":
        texts = [text for text, _ in json.loads((place / "clinc150" / "data_full.json").read_text())["train"]]
    else:
        with open(place / "banking77" / "train.csv", newline="", encoding="utf-8") as file:
            texts = [row["text"] for row in csv.DictReader(file)]
    return [f"data.unlabelled={write(folder / 'more.csv', [(text, '') for text in texts])}"]


def worker(work: dict[str, Any]) -> dict[str, Any]:
    """Carry out the recipe once."""
    import tunesmith
    from few_shot import since_start

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        train = write(folder / "train.csv", rows(work["set"], f"train_{work['shots']}"))
        test = write(folder / "test.csv", rows(work["set"], work["split"]))
        more = unlabelled(work["set"], folder) if work["recipe"] == "few-shot-unlabelled" else []
        run = tunesmith.train(
            RECIPES / f"{work['recipe']}.yaml",
            [f"data.train={train}", f"data.test={test}", f"output={folder / 'run'}", *seeds(work), *more,
             "evaluation.baselines=false", "evaluation.metrics=[accuracy]", *work["keys"]],
        )  # fmt: skip
        accuracy = run.metrics["test"]["accuracy"]["value"]
        return {"accuracy": accuracy, "seconds": since_start(), "training_seconds": run.summary["training_seconds"]}


def table(recipe: str, found: dict[str, dict[str, Any]]) -> str:
    """Write our figures beside the published ones."""
    cases = [f"{dataset} {shots}" for dataset in SETS for shots in SHOTS]
    lines = [f"{'':34}" + "".join(f"{case:>16}" for case in cases)]
    for name, values in PUBLISHED.items():
        lines.append(f"{name:34}" + "".join(f"{value:16.2f}" for value in values))
    cells = [
        f"{100 * found[case]['mean']:.2f} ({100 * found[case]['deviation']:.2f})" if case in found else "-"
        for case in cases
    ]
    seconds = [f"{found[case]['seconds']:.0f} s" if case in found else "-" for case in cases]
    lines.append(f"{f'MiniLM, recipes/{recipe}.yaml':34}" + "".join(f"{cell:>16}" for cell in cells))
    lines.append(f"{'  median time of a run':34}" + "".join(f"{cell:>16}" for cell in seconds))
    return "\n".join(lines)


def written(recipe: str) -> str:
    """Return the hash of a recipe's file."""
    return hashlib.sha256((RECIPES / f"{recipe}.yaml").read_bytes()).hexdigest()[:16]


def carried_out(dataset: str, shots: int, given: argparse.Namespace) -> dict[str, Any]:
    """Carry out the recipe with every seed on one split; what is kept is kept after every run."""
    kept, name = given.split == "test" and not given.keys, f"{dataset} {shots}-shot, {given.recipe}"
    found = common.kept("few_shot_intent").get(name, {}) if kept and given.go_on else {}
    found = found if found.get("recipe") == written(given.recipe) else {}  # nothing goes on with another recipe
    runs = found.get("runs", [])[: given.seeds]
    for seed in range(len(runs), given.seeds):
        work = {"recipe": given.recipe, "set": dataset, "shots": shots, "seed": seed, "split": given.split,
                "keys": given.keys}  # fmt: skip
        runs.append(common.child(__file__, work, given.threads))
        print(f"{name} seed {seed}: {100 * runs[-1]['accuracy']:.2f} %, {runs[-1]['seconds']:.0f} s", flush=True)
        found = {**summed(runs, given.threads), "recipe": written(given.recipe)}
        if kept:
            common.keep("few_shot_intent", name, found)
    return found


def summed(runs: list[dict[str, Any]], threads: int) -> dict[str, Any]:
    """Sum the runs of a split up."""
    scores = [run["accuracy"] for run in runs]
    return {
        "mean": statistics.mean(scores),
        "deviation": statistics.stdev(scores) if len(scores) > 1 else 0.0,
        "seconds": statistics.median(run["seconds"] for run in runs),
        "runs": runs,
        "machine": common.machine(threads),
    }


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--recipe", choices=("few-shot", *MEMBERS), default="few-shot")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--shots", nargs="+", type=int, choices=SHOTS, default=SHOTS)
    parser.add_argument("--split", choices=("test", "valid"), default="test")
    parser.add_argument("--keys", nargs="*", default=[])
    parser.add_argument("--go-on", action="store_true", help="keep the seeds that the results hold")
    given = parser.parse_args()
    found = {
        f"{dataset} {shots}": carried_out(dataset, shots, given) for dataset in given.sets for shots in given.shots
    }
    print(f"accuracy on {given.split}, mean and standard deviation of {given.seeds} seeds, %")
    print(table(given.recipe, found))


if __name__ == "__main__":
    common.begin(worker, main)
