"""What the prompt benchmarks share: CLINC150's ten domains as a task, and a small masked model trained on its texts."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import common
import tunesmith
from tunesmith.core.files import cache_folder

WORDS = {  # written by hand before anything was measured
    "banking": "bank", "credit_cards": "credit card", "kitchen_and_dining": "food", "home": "home",
    "auto_and_commute": "car", "travel": "travel", "utility": "time", "work": "work", "small_talk": "talk",
    "meta": "language",
}  # fmt: skip
HAND = "{text} it is about {label}."


def domains(folder: Path, train: int, validation: int, test: int) -> dict[str, str]:
    """Write rows of CLINC150 with the domain of their intent as label; return the data keys of a recipe.

    The files follow the published splits; test rows are read where a script evaluates, never by a search.
    """
    place = common.place("TUNESMITH_DATA") / "clinc150"
    data, of = json.loads((place / "data_full.json").read_text()), dict[str, str]()
    for domain, intents in json.loads((place / "domains.json").read_text()).items():
        of |= dict.fromkeys(intents, domain)
    found = {}
    for name, part, count in (("train", "train", train), ("validation", "val", validation), ("test", "test", test)):
        rows = [(text, of[intent]) for text, intent in data[part]]
        random.Random(0).shuffle(rows)
        found[name] = str(folder / f"{name}.csv")
        with open(found[name], "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label"), *rows[:count]])
    return found


def masked_model(epochs: int) -> Path:
    """Train a small masked model on the training texts of CLINC150, labels left out, once; return its folder."""
    folder = cache_folder("benchmarks") / f"clinc-masked-{epochs}"
    if (folder / "config.json").is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    data = json.loads((common.place("TUNESMITH_DATA") / "clinc150" / "data_full.json").read_text())
    texts = folder.parent / "clinc-texts.txt"
    texts.write_text("\n".join(text for text, _ in data["train"]) + "\n", encoding="utf-8")
    run = tunesmith.train(
        {
            "task": {"name": "text-generation", "objective": "masked", "masked_share": 0.25, "documents": "line"},
            "model": {"new": {"architecture": "bert", "size": "tiny", "vocabulary": 2000,
                              "config": {"num_hidden_layers": 2}}},
            "data": {"train": str(texts), "validation": 0.02, "max_tokens": 64},
            "method": "full",
            "training": {"epochs": epochs, "batch_size": 64, "learning_rate": 2e-3, "dropout": 0.0},
            "evaluation": {"baselines": False},
            "output": str(folder.with_name(folder.name + "-run")),
        },
        overwrite=True,
    )  # fmt: skip
    tunesmith.merge(run, folder, rows=16, keep=False)
    return folder
