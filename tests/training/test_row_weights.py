"""Weights of rows: the weighted mean over all training rows, whole or in passes, whatever the loss."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tunesmith
from tests.conftest import TEXTS, write_csv
from tests.training.test_many import backbone, trial
from tunesmith.core.errors import DataError, RecipeError
from tunesmith.core.registry import components
from tunesmith.methods.lora import Lora
from tunesmith.recipe.loading import load_recipe
from tunesmith.recipe.schema import TrainingSettings
from tunesmith.tasks.loss import RowLoss
from tunesmith.tasks.text_classification import TextClassification
from tunesmith.training.balancing import classes_of
from tunesmith.training.loop import Loop
from tunesmith.training.trial import Trial

ROW_LOSSES = [name for name, one in components("losses").items() if issubclass(one, RowLoss)]
NAMES = ["a", "b", "c"]


def weighted(loss: str, weights: Any, **settings: Any) -> Trial:
    found = trial(backbone(0.0), Lora(rank=2), "a", 0, batch_size=64, **settings)
    task = TextClassification(losses=[loss], head_start="random", head_dropout=0.0)
    found.tuned.task = task.prepare(found.tuned.backbone.model, {})
    found.tuned.head.dropout = 0.0
    found.split.weights = weights
    found.tuned.head.known_classes = classes_of(found.split.labels, NAMES, found.settings, weights)
    return found


def gradients(one: Trial, numbers: list[int]) -> tuple[float, list[torch.Tensor]]:
    """Gradients and loss of one step; nothing is updated."""
    kept: list[torch.Tensor] = []

    def keep(losses: Any) -> dict[str, float]:
        kept.extend(torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in one.tuned.parameters())
        return {"gradient_norm": 1.0}

    one.optimizer.step = keep  # type: ignore[method-assign]
    one.tuned.train(True)
    (value,) = Loop([one]).step([(one, numbers * one.tuned.task.copies)])
    assert any(bool(found.any()) for found in kept)
    return value, kept


@pytest.mark.parametrize("loss", ROW_LOSSES)
def test_a_weight_is_a_row_that_stands_so_often(loss: str) -> None:
    """Weights of whole numbers equal copies of rows, for every loss that is a mean over rows."""
    counts = np.random.default_rng(0).integers(0, 4, 64)
    one, copies = weighted(loss, 5.0 * counts), weighted(loss, None)  # only proportions count
    value, found = gradients(one, list(range(64)))
    expected, kept = gradients(copies, np.repeat(np.arange(64), counts).tolist())
    assert value == pytest.approx(expected, rel=1e-10)
    for a, b in zip(found, kept, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-12)


def test_passes_add_up_to_the_whole_step() -> None:
    weights = np.random.default_rng(1).random(64)
    whole, parts = (weighted("focal", weights, tokens_per_pass=most) for most in (10_000, 40))
    assert len(parts.passes(list(range(64)))) > 5
    rows = list(range(64))
    (first, one), (second, other) = gradients(whole, rows), gradients(parts, rows)
    assert first == pytest.approx(second, rel=1e-10)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-13)


def test_factors_of_rows_and_classes_together_have_the_mean_one() -> None:
    draw = np.random.default_rng(2)
    labels, own = draw.integers(0, 3, 50), draw.random(50)
    for wanted in (None, "balanced", "root", {"a": 4.0}):
        found = classes_of(labels, NAMES, TrainingSettings(class_weights=wanted), own).weights
        assert found is not None
        assert (found.numpy()[labels] * own).mean() == pytest.approx(1.0, rel=1e-12)


def test_weights_of_a_column_and_of_cleaning(recipe: dict[str, Any], data_folder: Path) -> None:
    rows = [(f"{text} {extra}", label) for label, texts in TEXTS.items() for text in texts for extra in "abcde"]
    lines = [{"text": text, "label": label, "w": 0.0 if label == "thanks" else 1.5} for text, label in rows]
    path = data_folder / "train.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = {**recipe["data"], "train": str(path), "row_weights": "w"}
    head = {"name": "text-classification", "head_start": "random", "head_kind": "linear"}
    long = {**recipe["training"], "epochs": 12, "learning_rate": 1e-2}
    plain = {**recipe, "task": head, "training": long, "evaluation": {"resamples": 100, "baselines": False}}
    run = tunesmith.train({**plain, "data": data})
    texts = [text for text, label in rows if label == "thanks"]
    assert run.predict_proba(texts)[:, run.labels.index("thanks")].mean() < 0.2  # nobody taught that label

    wrong = [(text, "parting" if number % 6 == 0 and label == "thanks" else label)
             for number, (text, label) in enumerate(rows)]  # fmt: skip
    write_csv(data_folder / "wrong.csv", wrong)
    steps = [{"name": "label-errors", "do": "weight", "odds": 1.5}]
    data = {**recipe["data"], "train": str(data_folder / "wrong.csv"), "cleaning": steps}
    run = tunesmith.train({**plain, "data": data, "training": recipe["training"], "output": str(data_folder / "two")})
    listed = [json.loads(line) for line in (run.folder / "cleaning.jsonl").read_text().splitlines()]
    assert listed and {one["what"] for one in listed} == {"weighted"}
    assert run.summary["data"]["train"]["rows"] == 48  # all of them train


def test_what_is_refused(recipe: dict[str, Any], data_folder: Path) -> None:
    for cell, said in (("much", "'much' is no weight"), ("-1", "'-1' is no weight"), ("inf", "no weight")):
        write_rows(data_folder / "odd.csv", cell)
        data = {**recipe["data"], "train": str(data_folder / "odd.csv"), "row_weights": "w", "validation": 0.2}
        with pytest.raises(DataError, match=f"odd.csv, line [2-4]: column 'w': {said}" if cell != "inf" else said):
            tunesmith.train({**recipe, "data": data})
    write_rows(data_folder / "odd.csv", "0", "0")
    with pytest.raises(DataError, match="every training row has the weight 0"):
        tunesmith.train({**recipe, "data": data})
    write_rows(data_folder / "odd.csv", "1e308", "1e308")
    with pytest.raises(DataError, match="the weights in column 'w' are too large to be added up"):
        tunesmith.train({**recipe, "data": data})
    for more in ({"row_weights": "w"}, {"cleaning": [{"name": "label-errors", "do": "weight"}]}):
        task = {"name": "text-classification", "losses": ["triplet", "cross-entropy"]}
        with pytest.raises(RecipeError, match="the loss triplet has no rows that could weigh more"):
            load_recipe({"data": {"train": "x.csv", **more}, "task": task})
    with pytest.raises(RecipeError, match="data.row_weights: the task 'text-generation' has no rows"):
        load_recipe({"data": {"train": "x.txt", "row_weights": "w"}, "task": "text-generation"})


def write_rows(path: Path, first: str, others: str = "1") -> None:
    rows = [f"{text} {extra},{label}" for label, texts in TEXTS.items() for text in texts for extra in "abc"]
    cells = [first] * 3 + [others] * (len(rows) - 3)
    path.write_text("text,label,w\n" + "".join(f"{row},{cell}\n" for row, cell in zip(rows, cells, strict=True)))
