import math

import pytest
import torch
from torch import nn

from tunesmith.training.optimizing import Optimizer, scale_at


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_schedules_against_their_closed_forms(schedule: str) -> None:
    total, warmup = 100, 10
    for step in range(total):
        done = (step - warmup) / (total - warmup)
        forms = {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "constant": 1.0}
        expected = (step + 1) / warmup if step < warmup else forms[schedule]
        assert scale_at(step, total, warmup, schedule) == pytest.approx(expected, abs=1e-15)


def test_equal_to_torch_adamw_with_clipping() -> None:
    def parameters() -> list[nn.Parameter]:
        draw = torch.Generator().manual_seed(0)
        return [nn.Parameter(torch.randn(*s, dtype=torch.float64, generator=draw)) for s in ((3, 2), (4,))]

    ours, theirs = parameters(), parameters()
    optimizer = Optimizer(
        [(ours, 0.1)], weight_decay=0.05, total=5, warmup_fraction=0.0, schedule="linear", clip_norm=0.5
    )
    groups = [{"params": theirs[:1], "weight_decay": 0.05}, {"params": theirs[1:], "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=0.1)
    for step in range(5):
        for group in (ours, theirs):
            sum((p**2 * (step + 1)).sum() for p in group).backward()
        for group in reference.param_groups:
            group["lr"] = 0.1 * (1 - step / 5)
        norm = nn.utils.clip_grad_norm_(theirs, 0.5)
        reference.step()
        reference.zero_grad()
        facts = optimizer.step()
        optimizer.clear()
        assert facts["gradient_norm"] == pytest.approx(norm.item())
        assert facts["learning_rate"] == pytest.approx(0.1 * (1 - step / 5))
    assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(ours, theirs, strict=True))


def test_a_scaled_loss_takes_the_same_steps_and_leaves_out_those_that_overflow() -> None:
    def trained(scaled: bool) -> tuple[nn.Parameter, Optimizer]:
        weight = nn.Parameter(torch.ones(3, 2))
        settings = {"weight_decay": 0.1, "total": 10, "warmup_fraction": 0.0, "schedule": "constant", "clip_norm": 0.5}
        return weight, Optimizer([([weight], 1e-2)], scaled=scaled, **settings)

    (plain, ours), (other, scaled) = trained(False), trained(True)
    for step in range(3):
        facts = []
        for weight, optimizer in ((plain, ours), (other, scaled)):
            loss = (weight * (step + 1.0)).pow(2).sum()
            optimizer.scale(loss).backward()
            facts.append(optimizer.step())
            optimizer.clear()
        assert facts[0] == pytest.approx(facts[1], rel=1e-6)
    torch.testing.assert_close(plain, other)
    before = other.detach().clone()
    scaled.scale(other.sum() * float("inf")).backward()
    scaled.step()
    assert torch.equal(other, before)
