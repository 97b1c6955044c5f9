"""The advisor's bands of accuracy, and what the plans then scored.

    TUNESMITH_DATA=... python benchmarks/score_bands.py [--cases banking home "BANKING77 1" ...]

Each domain of CLINC150 is a task of 15 intents, with 10 to 100 of its training rows per intent, and so is each of five
parts of BANKING77's intents, drawn once (labels with fewer rows give all). `tunesmith plan` sees the training rows
only; every plan that it gives a band is carried out and answers the published test rows (450 a domain, 600 a part).
What the bands of tuning are read off is published for BANKING77, so its own parts say nothing about transfer. A band
says what test rows without end would give, so the chance of so many stands beside it: a score is within where Wilson's
interval of 95 % meets the band, and strictly within where the score itself lies in it. Results go to
benchmarks/results/score_bands.json, and a script that was interrupted goes on.
"""

from __future__ import annotations

import csv
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import common

ROWS = {"banking": 100, "credit_cards": 60, "kitchen_and_dining": 40, "home": 20, "auto_and_commute": 10, "travel": 60,
        "utility": 40, "work": 40, "small_talk": 20, "meta": 10, "BANKING77 1": 10, "BANKING77 2": 20,
        "BANKING77 3": 40, "BANKING77 4": 60, "BANKING77 5": 100}  # per intent, of each task  # fmt: skip
Rows = list[tuple[str, str]]


def clinc150(domain: str) -> dict[str, Rows]:
    """Return all rows of a domain's intents."""
    place = common.place("TUNESMITH_DATA") / "clinc150"
    data = json.loads((place / "data_full.json").read_text())
    intents = json.loads((place / "domains.json").read_text())[domain]
    return {
        name: [(text, label) for intent in intents for text, label in data[name] if label == intent]
        for name in ("train", "test")
    }


def banking77(part: int) -> dict[str, Rows]:
    """Return all rows of 15 of the intents; parts share none."""
    data = dict[str, Rows]()
    for name in ("train", "test"):
        with open(common.place("TUNESMITH_DATA") / "banking77" / f"{name}.csv", newline="", encoding="utf-8") as file:
            data[name] = [(row["text"], row["category"]) for row in csv.DictReader(file)]
    intents = sorted({label for _, label in data["train"]})
    random.Random(0).shuffle(intents)
    chosen = intents[15 * (part - 1) : 15 * part]
    return {name: [row for intent in chosen for row in rows if row[1] == intent] for name, rows in data.items()}


def files(folder: Path, task: str) -> dict[str, str]:
    """Write a task's rows as CSV files: so many of its training rows per intent, and all of its test rows."""
    data = banking77(int(task.split()[1])) if task.startswith("BANKING77") else clinc150(task)
    draw, train = random.Random(0), Rows()
    for intent in dict.fromkeys(label for _, label in data["train"]):
        own = [row for row in data["train"] if row[1] == intent]
        train += draw.sample(own, min(ROWS[task], len(own)))
    draw.shuffle(train)
    written = {}
    for name, rows in (("train", train), ("test", data["test"])):
        written[name] = str(folder / f"{name}.csv")
        with open(written[name], "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    return written


def checked(task: str, folder: Path) -> dict[str, Any]:
    """Plan for a task, and carry out every plan with a band."""
    import tunesmith

    written = files(folder, task)
    plans = tunesmith.plan(written["train"], ["data.text=text", "data.label=label"])["plans"]
    found = {}
    for plan in plans:
        if plan["score"] is None:
            continue
        recipe = {**plan["recipe"], "output": str(folder / plan["name"])}
        recipe["data"] = {**recipe["data"], "test": written["test"]}
        recipe["evaluation"] = {**recipe.get("evaluation", {}), "baselines": False, "metrics": ["accuracy"]}
        measured = tunesmith.train(recipe).metrics["test"]["accuracy"]
        band = plan["score"]
        found[plan["name"]] = {
            "band": band,
            "measured": measured,
            "within": measured["low"] <= band["high"] and band["low"] <= measured["high"],
            "strictly_within": band["low"] <= measured["value"] <= band["high"],
        }
    return {"rows_per_label": ROWS[task], "plans": found}


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--cases", nargs="+", choices=ROWS, default=list(ROWS))
    given = parser.parse_args()
    for task in given.cases:
        if task in common.kept("score_bands"):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            found = checked(task, Path(scratch))
        common.keep("score_bands", task, found)
        for name, one in found["plans"].items():
            band, was = one["band"], one["measured"]
            ends = f"{100 * band['low']:.1f} to {100 * band['high']:.1f} %"
            print(
                f"{task}, {found['rows_per_label']} rows per intent, {name}: {ends}, measured "
                f"{100 * was['value']:.1f} % ({100 * was['low']:.1f} to {100 * was['high']:.1f}), "
                f"{'within' if one['within'] else 'OUTSIDE'}",
                flush=True,
            )


if __name__ == "__main__":
    main()
