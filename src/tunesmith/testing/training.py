"""What every optimizer, schedule, loss of rows and regularizer must keep."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.recipe.schema import TrainingSettings
from tunesmith.tasks.loss import Learned, Loss
from tunesmith.training.optimizers.base import Rule
from tunesmith.training.optimizing import Optimizer
from tunesmith.training.packing import packed, unpacked
from tunesmith.training.regularizers.base import Regularizer
from tunesmith.training.regularizing import Regularizing
from tunesmith.training.schedules.base import Schedule

_STEPS = 40


def _parameters(seed: int = 0) -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(*shape, generator=draw)) for shape in ((6, 4), (4,))]


def _distance(parameters: list[nn.Parameter]) -> Tensor:
    return torch.stack([(one - 2.0).square().mean() for one in parameters]).sum()


def check_optimizer(kind: type[Rule]) -> None:
    """Check that an optimizer minimises, and goes on from its state to the bit.

    Args:
        kind: the optimizer's class.
    Raises:
        AssertionError: a promise is broken; the message says which.
    """
    settings = TrainingSettings(
        optimizer=kind.name,
        schedule="constant",
        warmup_fraction=0.0,
        weight_decay=0.0,
        clip_norm=None,
    )
    own = _parameters()
    optimizer, before = Optimizer([(own, 0.05)], settings, _STEPS), _distance(own).item()
    copies: list[nn.Parameter] = []
    tensors: dict[str, Tensor] = {}
    state: Any = None
    for step in range(_STEPS):
        if step == _STEPS // 2:
            state = packed(optimizer.state(), tensors)
            tensors = {name: tensor.clone() for name, tensor in tensors.items()}
            copies = [nn.Parameter(one.detach().clone()) for one in own]
        _distance(own).backward()
        optimizer.step()
        optimizer.clear()
    assert _distance(own).item() < 0.9 * before, f"{kind.name} does not minimise a sum of squares"
    later = Optimizer([(copies, 0.05)], settings, _STEPS)
    later.resume(unpacked(state, tensors))
    for _ in range(_STEPS // 2, _STEPS):
        _distance(copies).backward()
        later.step()
        later.clear()
    alike = all(torch.equal(one, other) for one, other in zip(own, copies, strict=True))
    assert alike, f"{kind.name} makes other steps after a checkpoint"


def check_schedule(kind: type[Schedule]) -> None:
    """Check that a schedule's shares are numbers from 0 to 1, that it reaches 1, and answers the same twice.

    Args:
        kind: the schedule's class.
    Raises:
        AssertionError: a promise is broken; the message says which.
    """
    schedule = kind()
    for total in (1, 7, 1000):
        shares = [schedule.share(step, total, ()) for step in range(total)]
        assert all(math.isfinite(one) and 0 <= one <= 1 for one in shares), f"{kind.name} leaves the range 0 to 1"
        assert shares == [schedule.share(step, total, ()) for step in range(total)], f"{kind.name} remembers steps"
    assert max(shares) > 0.99, f"{kind.name} never reaches the highest rate"
    assert kind.rises or shares[0] == 1, f"{kind.name} begins below the highest rate and says not that it rises"


def check_loss(kind: type[Loss]) -> None:
    """Check that a loss is a finite number, that its gradients are, and that right answers have the lower one.

    Args:
        kind: the loss's class.
    Raises:
        AssertionError: a promise is broken; the message says which.
    """
    draw, labels = torch.Generator().manual_seed(0), torch.tensor([0, 1, 2, 0, 1, 2])
    vectors = torch.eye(3, 5, dtype=torch.float64, requires_grad=True)
    noise = torch.randn(6, 5, generator=draw, dtype=torch.float64)
    found = []
    for nearness in (0.2, 5.0):
        features = (noise + nearness * torch.eye(3, 5, dtype=torch.float64)[labels]).requires_grad_()
        logits = 3 * features @ vectors.T
        weights = torch.ones(6, dtype=torch.float64) if kind.weighable else None
        given = Learned(features, labels, logits, vectors, counts=torch.tensor([9, 3, 1]), row_weights=weights)
        value = kind().compute(given)
        value.backward()
        assert math.isfinite(value.item()), f"{kind.name} is {value.item()}"
        assert features.grad is not None and features.grad.isfinite().all(), f"{kind.name} has no finite gradient"
        found.append(value.item())
    assert found[1] < found[0], f"{kind.name} does not prefer right answers: {found}"


def check_regularizer(kind: type[Regularizer]) -> None:
    """Check that a regularizer leaves parameters where they are, repeats itself, and goes on from its state.

    Args:
        kind: the regularizer's class.
    Raises:
        AssertionError: a promise is broken; the message says which.
    """

    def began() -> tuple[Regularizing, list[nn.Parameter]]:
        own = _parameters()
        found = Regularizing([kind.name], own, [], seed=0)
        with torch.no_grad():
            for one in own:
                one.add_(0.5)
        return found, own

    def steps(found: Regularizing, own: list[nn.Parameter], numbers: range) -> list[Any]:
        seen: list[Any] = []
        for step in numbers:
            before = [one.detach().clone() for one in own]
            found.enter()
            penalty = found.penalty()
            seen.append([one.detach().clone() for one in own])
            seen.append([] if penalty is None else [penalty.detach()])
            found.leave()
            unmoved = all(torch.equal(one, other) for one, other in zip(own, before, strict=True))
            assert unmoved, f"{kind.name} moves parameters"
            found.average(step, 8)
            seen.append([one.clone() for one in found.answers().values()])
            if found.makes_noise:
                seen.append([found.noise(torch.Size((5, 4)), torch.tensor([2.0, 2, 3, 3, 3]))])
        return seen

    (first, own), (again, others) = began(), began()
    whole = steps(first, own, range(1, 9))
    half = steps(again, others, range(1, 5))
    tensors: dict[str, Tensor] = {}
    state = packed(again.state(), tensors)
    later, theirs = began()
    later.resume(unpacked(state, tensors), "the state")
    half += steps(later, theirs, range(5, 9))
    pairs = [pair for some, other in zip(whole, half, strict=True) for pair in zip(some, other, strict=True)]
    assert all(torch.equal(one, other) for one, other in pairs), f"{kind.name} does other things after a checkpoint"
