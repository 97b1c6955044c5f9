"""What a run holds of its rows: places and lengths, not texts and tokens."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import TEXTS, write_csv
from tunesmith.api import train
from tunesmith.core import growing
from tunesmith.data import examples, token_store, tokens
from tunesmith.data.examples import Columns, find_reader, read_examples
from tunesmith.recipe.loading import load_recipe
from tunesmith.runs.opening import read_corpus
from tunesmith.runs.session import open_reading
from tunesmith.tasks import encoding

WORDS = sorted({word for texts in TEXTS.values() for text in texts for word in text.split()})


def write_rows(path: Path, rows: int) -> Path:
    draw = np.random.default_rng(0)
    lines = [
        json.dumps({"text": f"{number} {' '.join(draw.choice(WORDS, 200))}", "label": f"kind {number % 3}"})
        for number in range(rows)
    ]
    path.write_text("\n".join(lines))
    return path


def held(recipe: dict[str, Any]) -> int:
    """Return the most that Python and numpy hold while a recipe's data are read, split and tokenised. [bytes]"""
    checked = load_recipe(recipe)
    session = open_reading(checked)
    tracemalloc.start()
    try:
        corpus = read_corpus(checked, session)
        assert len(corpus.splits["train"].tokens[0]) > 50 and len(corpus.splits["validation"].tokens)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("task", ["text-generation", "text-classification"])
def test_a_further_row_costs_its_places_only(
    task: str, tmp_path: Path, tiny_folder: Path, tiny_writer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (examples, tokens, encoding):
        monkeypatch.setattr(module, "_CHUNK", 32)
    monkeypatch.setattr(growing, "_BLOCK", 2**12)
    monkeypatch.setattr(token_store, "_LARGE", 2**40)  # it writes in blocks of 16 MiB, more than all of these
    peaks = {}
    for rows in (1000, 2000):
        path = write_rows(tmp_path / f"{rows}.jsonl", rows)
        assert path.stat().st_size > 1000 * rows > 2**19
        recipe = {
            "task": task, "model": str(tiny_writer if task == "text-generation" else tiny_folder),
            "data": {"train": str(path), "validation": 0.1},
        }  # fmt: skip
        peaks[rows] = held(recipe)
    assert peaks[2000] - peaks[1000] < 250 * 1000, f"{peaks} bytes for rows of 1,000 characters"


def test_rows_are_taken_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "_CHUNK", 4)
    path = write_rows(tmp_path / "rows.jsonl", 11)
    found = read_examples(find_reader(path), Columns("text", "label"))
    for index in ([10, 0, 0, 3, 4, 9, 2], [], range(11), np.array([7])):
        assert [row["text"].split()[0] for row in found.rows(index)] == [str(row) for row in index]
        assert all(row["label"] == f"kind {int(row['text'].split()[0]) % 3}" for row in found.rows(index))
    assert len(list(found.rows())) == 11


@pytest.mark.parametrize(("most", "epochs"), [(2, 1), (4, 2), (99, 3)])
def test_training_ends_after_so_many_steps(tmp_path: Path, tiny_folder: Path, most: int, epochs: int) -> None:
    path = write_csv(tmp_path / "few.csv", [(text, label) for label, texts in TEXTS.items() for text in texts])
    run = train({
        "task": "text-classification", "model": str(tiny_folder),
        "data": {"train": str(path), "validation": str(path)}, "output": str(tmp_path / "run"),
        "training": {"epochs": 3, "batch_size": 4, "max_steps": most, "score_every": 3},
        "evaluation": {"baselines": False, "resamples": 100},
    })  # fmt: skip
    assert run.summary["steps"] == min(most, 9) and run.summary["best_epoch"] == epochs, "the last epoch is scored"
