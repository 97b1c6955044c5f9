"""The advisor's bands of accuracy, and what the plans then scored.

    TUNESMITH_DATA=... python benchmarks/score_bands.py [--cases banking home ...]

Each domain of CLINC150 is a task of 15 intents, with 10 to 100 of its training rows per intent. `tunesmith plan` sees
the training rows only; every plan that it gives a band is carried out and answers the published test rows of the
domain (450). What the bands of tuning are read off is published for another data set, BANKING77. A band says what test
rows without end would give, so the chance of 450 of them stands beside it: a score is within where Wilson's interval of
95 % meets the band, and strictly within where the score itself lies in it. Results go to
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
        "utility": 40, "work": 40, "small_talk": 20, "meta": 10}  # per intent, of each domain  # fmt: skip


def files(folder: Path, domain: str) -> dict[str, str]:
    """Write a domain's rows as CSV files: so many of its training rows per intent, and all of its test rows."""
    place, draw = common.place("TUNESMITH_DATA") / "clinc150", random.Random(0)
    data = json.loads((place / "data_full.json").read_text())
    intents = json.loads((place / "domains.json").read_text())[domain]
    train = list[tuple[str, str]]()
    for intent in intents:
        own = [(text, label) for text, label in data["train"] if label == intent]
        train += draw.sample(own, ROWS[domain])
    draw.shuffle(train)
    test = [(text, label) for text, label in data["test"] if label in intents]
    written = {}
    for name, rows in (("train", train), ("test", test)):
        written[name] = str(folder / f"{name}.csv")
        with open(written[name], "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    return written


def checked(domain: str, folder: Path) -> dict[str, Any]:
    """Plan for a domain, and carry out every plan with a band."""
    import tunesmith

    written = files(folder, domain)
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
    return {"rows_per_label": ROWS[domain], "plans": found}


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--cases", nargs="+", choices=ROWS, default=list(ROWS))
    given = parser.parse_args()
    for domain in given.cases:
        if domain in common.kept("score_bands"):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            found = checked(domain, Path(scratch))
        common.keep("score_bands", domain, found)
        for name, one in found["plans"].items():
            band, was = one["band"], one["measured"]
            ends = f"{100 * band['low']:.1f} to {100 * band['high']:.1f} %"
            print(
                f"{domain}, {found['rows_per_label']} rows per intent, {name}: {ends}, measured "
                f"{100 * was['value']:.1f} % ({100 * was['low']:.1f} to {100 * was['high']:.1f}), "
                f"{'within' if one['within'] else 'OUTSIDE'}",
                flush=True,
            )


if __name__ == "__main__":
    main()
