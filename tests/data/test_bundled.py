"""The bundled intents: enough of each, nothing twice, test rows no copies of training rows."""

import csv
from collections import Counter
from pathlib import Path

import tunesmith

FOLDER = Path(tunesmith.__file__).parent / "data" / "bundled" / "shop_intents"


def rows(name: str) -> list[dict[str, str]]:
    with open(FOLDER / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def trigrams(text: str) -> set[str]:
    text = " ".join(text.lower().split())
    return {text[place : place + 3] for place in range(len(text) - 2)}


def test_counts() -> None:
    train, test = (Counter(row["category"] for row in rows(name)) for name in ("train.csv", "test.csv"))
    assert set(train) == set(test) and len(train) >= 13 and "out_of_scope" in train
    assert min(train.values()) >= 25 and min(test.values()) >= 15


def test_no_near_copies() -> None:
    train, test = ([trigrams(row["text"]) for row in rows(name)] for name in ("train.csv", "test.csv"))
    highest = max(len(a & b) / len(a | b) for a in train for b in test)
    assert highest < 0.5
    for split in (train, test):
        assert max(len(a & b) / len(a | b) for i, a in enumerate(split) for b in split[:i]) < 0.7
