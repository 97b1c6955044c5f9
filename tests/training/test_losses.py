"""Losses for noise and imbalance against their formulas, written out row by row in float64; weights and sampling."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tunesmith
from tests.conftest import TEXTS, write_csv
from tests.training.test_many import backbone, trial
from tunesmith.core.errors import RecipeError
from tunesmith.core.named import build_named
from tunesmith.core.registry import components
from tunesmith.methods.lora import Lora
from tunesmith.recipe.loading import load_recipe
from tunesmith.recipe.schema import TrainingSettings
from tunesmith.tasks.loss import Learned, RowLoss
from tunesmith.training.balancing import classes_of
from tunesmith.training.loop import Loop
from tunesmith.training.sampling import balanced_order, rows_of_epoch

ROWS, CLASSES = 6, 4
LABELS = torch.tensor([0, 1, 2, 3, 1, 0])
COUNTS = torch.tensor([40, 10, 5, 1])


def logits() -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return (2 * torch.randn(ROWS, CLASSES, generator=draw, dtype=torch.float64)).requires_grad_()


def learned(values: Tensor, weights: Tensor | None = None) -> Learned:
    return Learned(values, LABELS, values, None, counts=COUNTS, row_weights=weights)


def probabilities(row: list[float]) -> list[float]:
    exps = [math.exp(value) for value in row]
    return [value / sum(exps) for value in exps]


def effective(n: int, beta: float) -> float:
    return (1 - beta) / (1 - beta**n)


def class_balanced(row: list[float], y: int, beta: float = 0.999, gamma: float = 0.0) -> float:
    p, weights = probabilities(row)[y], [effective(n, beta) for n in COUNTS.tolist()]
    return -weights[y] * CLASSES / sum(weights) * (1 - p) ** gamma * math.log(p)


def adjusted(row: list[float], y: int, tau: float) -> float:
    moved = [value + tau * math.log(n / 56) for value, n in zip(row, COUNTS.tolist(), strict=True)]
    return -math.log(probabilities(moved)[y])


def symmetric(row: list[float], y: int, alpha: float, beta: float, log_zero: float) -> float:
    p = probabilities(row)
    reverse = -sum(p[c] * (0.0 if c == y else log_zero) for c in range(CLASSES))
    return -alpha * math.log(p[y]) + beta * reverse


def bootstrapped(row: list[float], y: int, beta: float, hard: bool) -> float:
    p = probabilities(row)
    z = [float(c == max(range(CLASSES), key=p.__getitem__)) for c in range(CLASSES)] if hard else p
    return -sum((beta * (c == y) + (1 - beta) * z[c]) * math.log(p[c]) for c in range(CLASSES))


FORMS: dict[str, tuple[Any, Callable[[list[float], int], float]]] = {
    "cross-entropy": ("cross-entropy", lambda row, y: -math.log(probabilities(row)[y])),
    "focal": ("focal", lambda row, y: -((1 - probabilities(row)[y]) ** 2) * math.log(probabilities(row)[y])),
    "focal 0": ({"name": "focal", "gamma": 0.0}, lambda row, y: -math.log(probabilities(row)[y])),
    "class-balanced": ("class-balanced", class_balanced),
    "class-balanced focal": (
        {"name": "class-balanced", "beta": 0.9, "gamma": 1.5},
        lambda row, y: class_balanced(row, y, 0.9, 1.5),
    ),
    "logit-adjustment": ({"name": "logit-adjustment", "tau": 1.5}, lambda row, y: adjusted(row, y, 1.5)),
    "symmetric-cross-entropy": (
        {"name": "symmetric-cross-entropy", "alpha": 0.1, "beta": 2.0, "log_zero": -6.0},
        lambda row, y: symmetric(row, y, 0.1, 2.0, -6.0),
    ),
    "generalised-cross-entropy": (
        "generalised-cross-entropy", lambda row, y: (1 - probabilities(row)[y] ** 0.7) / 0.7,
    ),
    "generalised-cross-entropy 1": (
        {"name": "generalised-cross-entropy", "q": 1.0}, lambda row, y: 1 - probabilities(row)[y],
    ),
    "bootstrapped": ("bootstrapped", lambda row, y: bootstrapped(row, y, 0.95, False)),
    "bootstrapped hard": (
        {"name": "bootstrapped", "beta": 0.8, "answer": "hard"}, lambda row, y: bootstrapped(row, y, 0.8, True),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FORMS)
def test_a_loss_is_its_formula_and_its_gradient_is_right(case: str) -> None:
    written, form = FORMS[case]
    loss, values = build_named("losses", written), logits()
    expected = [form(row, y) for row, y in zip(values.tolist(), LABELS.tolist(), strict=True)]
    rows = loss.rows(learned(values))
    assert rows.tolist() == pytest.approx(expected, rel=1e-10)
    assert loss.compute(learned(values)).item() == pytest.approx(sum(expected) / ROWS, rel=1e-10)
    weights = torch.linspace(0.5, 2, ROWS, dtype=torch.float64)
    weighed = sum(w * e for w, e in zip(weights.tolist(), expected, strict=True)) / ROWS
    assert loss.compute(learned(values, weights)).item() == pytest.approx(weighed, rel=1e-10)
    assert torch.autograd.gradcheck(lambda x: loss.rows(learned(x)), values, eps=1e-6, atol=1e-7)


def test_every_loss_of_rows_has_a_formula_here() -> None:
    rows = {name for name, one in components("losses").items() if issubclass(one, RowLoss)}
    assert rows == {case.split(" ")[0] for case in FORMS} | {"r-drop"}


def test_r_drop_is_half_of_the_papers_sum() -> None:
    loss, values = build_named("losses", {"name": "r-drop", "alpha": 3.0}), logits()
    labels = LABELS[:3].repeat(2)
    given = Learned(values, labels, values, None)
    total = 0.0
    for first, second, y in zip(values[:3].tolist(), values[3:].tolist(), labels.tolist(), strict=False):
        p, q = probabilities(first), probabilities(second)
        apart = sum(a * math.log(a / b) + b * math.log(b / a) for a, b in zip(p, q, strict=True))
        total += -math.log(p[y]) - math.log(q[y]) + 3.0 / 2 * apart
    assert loss.compute(given).item() == pytest.approx(total / 3 / 2, rel=1e-10)
    assert torch.autograd.gradcheck(lambda x: loss.rows(Learned(x, labels, x, None)), values, eps=1e-6, atol=1e-7)


def test_losses_of_far_too_sure_logits_stay_numbers() -> None:
    for name, one in components("losses").items():
        if not issubclass(one, RowLoss):
            continue
        values = torch.tensor([[200.0, 0, 0, 0], [0, 200.0, 0, 0]], requires_grad=True)
        given = Learned(values, torch.tensor([0, 0]), values, None, counts=COUNTS)
        found = build_named("losses", name).compute(given)
        found.backward()
        assert math.isfinite(found.item()) and values.grad is not None and values.grad.isfinite().all(), name


def test_class_weights_have_mean_one_over_the_rows() -> None:
    labels, names = np.repeat([0, 1, 2], [40, 10, 5]), ["a", "b", "c"]
    balanced = classes_of(labels, names, TrainingSettings(class_weights="balanced")).weights
    assert balanced is not None and balanced.tolist() == pytest.approx([55 / 3 / n for n in (40, 10, 5)])
    for wanted in ("root", {"b": 4.0}):
        weights = classes_of(labels, names, TrainingSettings(class_weights=wanted)).weights
        assert weights is not None and weights.numpy()[labels].mean() == pytest.approx(1)
        assert weights[1] / weights[0] == pytest.approx(2 if wanted == "root" else 4)
    with pytest.raises(RecipeError, match="unknown label 'd'"):
        classes_of(labels, names, TrainingSettings(class_weights={"d": 4.0}))


def test_sampling_gives_every_label_as_many_rows() -> None:
    labels, draw = np.repeat([0, 1, 2], [7, 3, 2]), torch.Generator().manual_seed(0)
    for balance, each in (("oversample", 7), ("undersample", 2)):
        orders = [balanced_order(labels, balance, draw).tolist() for _ in range(2)]
        assert orders[0] != orders[1]
        for order in orders:
            assert len(order) == rows_of_epoch(labels, balance) == 3 * each
            assert np.bincount(labels[order]).tolist() == [each] * 3
            times = np.bincount(order, minlength=12)
            for code in range(3):
                assert np.ptp(times[labels == code]) <= 1
    assert rows_of_epoch(labels, "none") == 12


def recipe(folder: Path, tiny: Path, **changed: Any) -> dict[str, Any]:
    sizes = {"greeting": 6, "parting": 2, "thanks": 1}
    rows = [(f"{text} {n}", label) for label, texts in TEXTS.items() for text in texts for n in range(sizes[label])]
    train = write_csv(folder / "few.csv", rows)
    training = {"epochs": 2, "batch_size": 6, **changed.pop("training", {})}
    return {
        "task": {"name": "text-classification", **changed.pop("task", {})}, "model": str(tiny),
        "data": {"train": str(train), "validation": str(train)}, "training": training, "output": str(folder / "run"),
        "evaluation": {"baselines": False, "resamples": 100}, **changed,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("task", "training", "steps"),
    [
        ({"losses": ["logit-adjustment"]}, {}, 12),
        ({"losses": [{"name": "class-balanced", "beta": 0.9}]}, {"balance": "oversample"}, 24),
        ({"losses": ["r-drop"]}, {"balance": "undersample", "class_weights": {"thanks": 2.0}}, 4),
    ],
)
def test_a_run_with_a_loss_and_balance(
    data_folder: Path, tiny_folder: Path, task: dict[str, Any], training: dict[str, Any], steps: int
) -> None:
    run = tunesmith.train(recipe(data_folder, tiny_folder, task=task, training=training))
    assert run.summary["steps"] == steps
    history = [row for row in (run.folder / "history.jsonl").read_text().splitlines() if row]
    assert len(history) == 2


@pytest.mark.parametrize(
    ("task", "training", "said"),
    [
        ({"losses": ["triplet", "cross-entropy"]}, {"class_weights": "root"}, "class_weights: the loss triplet has no"),
        ({"losses": ["focal"]}, {"label_smoothing": 0.1}, "label_smoothing: the losses focal do not read it"),
        ({"losses": ["r-drop", "cross-entropy"]}, {}, "it stands alone"),
        ({"losses": ["r-drop"], "head_kind": "prototypes"}, {}, "the head prototypes keeps each once"),
        ({}, {"balance": "oversample", "rows_per_label": 2}, "leave one of the two out"),
        ({}, {"class_weights": {"a": 0.0}}, "class_weights"),
        ({"name": "text-generation"}, {"balance": "oversample"}, "has no labels to balance"),
    ],
)
def test_what_is_refused(task: dict[str, Any], training: dict[str, Any], said: str) -> None:
    given = {"task": {"name": "text-classification", **task}, "data": {"train": "train.csv"}, "training": training}
    with pytest.raises(RecipeError, match=said):
        load_recipe(given)


def test_r_drop_compares_a_row_with_its_own_copy_whatever_the_lengths() -> None:
    """Without dropout both copies are the same, so nothing disagrees and the loss is cross-entropy's."""
    rows, found = [3, 14, 15, 9, 26, 5, 35, 8], []
    for name in ("r-drop", "cross-entropy"):
        one = trial(backbone(0.0), Lora(rank=2), "a", 0, batch_size=8)
        one.tuned.task = one.tuned.task.model_copy(update={"losses": [name]})
        one.tuned.head.dropout = 0.0
        one.tuned.train(True)
        (loss,) = Loop([one]).losses([(one, rows * one.tuned.task.copies)])
        found.append(loss.item())
    assert found[0] == pytest.approx(found[1], rel=1e-10)


def test_class_balanced_near_one_is_a_number_in_single_precision() -> None:
    loss = build_named("losses", {"name": "class-balanced", "beta": 0.99999999})
    values = logits().detach()
    inverse = [1 / n for n in COUNTS.tolist()]  # what it comes to
    for given in (values, values.float()):
        found = loss.rows(learned(given))
        for row, y, one in zip(values.tolist(), LABELS.tolist(), found.tolist(), strict=True):
            expected = -math.log(probabilities(row)[y]) * inverse[y] * CLASSES / sum(inverse)
            assert one == pytest.approx(expected, rel=1e-4)
        assert found.dtype == given.dtype
