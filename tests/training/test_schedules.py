"""Every schedule against its closed form, or torch's."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tunesmith.core.named import build_named
from tunesmith.core.registry import components
from tunesmith.recipe.schema import TrainingSettings
from tunesmith.training.optimizing import Optimizer

TOTAL = 40


def shares(written: Any, total: int = TOTAL, losses: tuple[float, ...] = ()) -> list[float]:
    schedule = build_named("schedules", written)
    return [schedule.share(step, total, losses) for step in range(total)]


def cosine(p: float) -> float:
    return (1 + math.cos(math.pi * p)) / 2


FORMS: dict[str, tuple[Any, Callable[[float], float]]] = {
    "constant": ("constant", lambda p: 1.0),
    "linear": ("linear", lambda p: 1 - p),
    "linear with an end": ({"name": "linear", "end": 0.2}, lambda p: 1 - 0.8 * p),
    "cosine": ("cosine", cosine),
    "cosine with an end": ({"name": "cosine", "end": 0.1}, lambda p: 0.1 + 0.9 * cosine(p)),
    "restarts": ({"name": "restarts", "cycles": 4}, lambda p: cosine((4 * p) % 1)),
    "restarts that grow": (
        {"name": "restarts", "cycles": 2, "growth": 3.0},
        lambda p: cosine(4 * p) if p < 0.25 else cosine((p - 0.25) / 0.75),
    ),
    "exponential": ("exponential", lambda p: 0.01**p),
    "polynomial": ({"name": "polynomial", "power": 3.0, "end": 0.1}, lambda p: 0.1 + 0.9 * (1 - p) ** 3),
    "step": ("step", lambda p: 1.0 if p < 0.5 else 0.1 if p < 0.75 else 0.01),
    "warmup-stable-decay": ("warmup-stable-decay", lambda p: 1.0 if p < 0.8 else 5 * (1 - p)),
    "warmup-stable-decay, cosine": (
        {"name": "warmup-stable-decay", "decay_fraction": 0.5, "form": "cosine"},
        lambda p: 1.0 if p < 0.5 else cosine(2 * p - 1),
    ),
    "warmup-stable-decay, root": (
        {"name": "warmup-stable-decay", "form": "root", "end": 0.1},
        lambda p: 1.0 if p < 0.8 else 1 - 0.9 * math.sqrt(5 * p - 4),
    ),
    "one-cycle": (
        {"name": "one-cycle", "rising_fraction": 0.25, "start": 0.1, "end": 0.01},
        lambda p: 0.1 + 0.9 * cosine(1 - 4 * p) if p < 0.25 else 0.01 + 0.99 * cosine((p - 0.25) / 0.75),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FORMS)
def test_a_schedule_is_its_closed_form(case: str) -> None:
    written, form = FORMS[case]
    expected = [form(step / TOTAL) for step in range(TOTAL)]
    assert shares(written) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_every_schedule_has_a_closed_form_here() -> None:
    assert {case.split(" ")[0].rstrip(",") for case in FORMS} | {"plateau"} == set(components("schedules"))


def test_plateau_falls_as_torchs() -> None:
    draw = torch.Generator().manual_seed(0)
    losses = [float(1 / (1 + 0.1 * epoch) + 0.2 * torch.rand((), generator=draw)) for epoch in range(30)]
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1, threshold=1e-4)
    schedule = build_named("schedules", {"name": "plateau", "epochs": 2})
    seen = set()
    for epoch, loss in enumerate(losses):
        theirs.step(loss)
        share = schedule.share(0, 1, losses[: epoch + 1])
        assert share == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        seen.add(share)
    assert len(seen) > 3
    floored = build_named("schedules", {"name": "plateau", "end": 0.3})
    assert floored.share(0, 1, [1.0] * 9) == 0.3


def test_warm_up_comes_before_a_schedule_and_not_before_one_that_rises_itself() -> None:
    def rates(**training: Any) -> list[float]:
        weight = nn.Parameter(torch.ones(2, 2))
        optimizer = Optimizer([([weight], 2.0)], TrainingSettings(**training), total=20)
        found = []
        for _ in range(20):
            weight.grad = torch.ones(2, 2)
            found.append(optimizer.step()["learning_rate"])
        return found

    expected = [2 * (step + 1) / 5 for step in range(5)] + [2 * (1 - step / 15) for step in range(15)]
    assert rates(schedule="linear", warmup_fraction=0.25) == pytest.approx(expected, rel=1e-12)
    cycle = rates(schedule="one-cycle")
    assert cycle == pytest.approx([2 * share for share in shares("one-cycle", 20)], rel=1e-12)
    assert max(cycle) == cycle[6] == 2.0
