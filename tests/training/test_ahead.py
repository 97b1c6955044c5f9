"""A GPU is given the next rows before it is done with a step, and asked for losses after it: nothing else changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.test_many import backbone, trial
from tunesmith.core.errors import TunesmithError
from tunesmith.methods.lora import Lora
from tunesmith.models.layout import ragged
from tunesmith.training import ahead
from tunesmith.training import loop as looping
from tunesmith.training.loop import Loop


class Late:
    """Stands for a loss on a GPU."""

    def __init__(self, loss: Tensor) -> None:
        self.loss = loss.detach()

    def value(self) -> float:
        return float(self.loss)


def trained(monkeypatch: pytest.MonkeyPatch, on_gpu: bool, **settings: Any) -> tuple[list[Any], int, int]:
    """Train as on a GPU or not: the weights and losses, how often rows were sent, and how often ahead of their step."""
    monkeypatch.setattr(Loop, "_runs_ahead", lambda self, work: on_gpu)
    monkeypatch.setattr(looping, "Unread", Late)
    sent, early = list[Any](), list[Any]()
    put, look = ahead.Ahead._put, ahead.Ahead.look_ahead
    monkeypatch.setattr(ahead.Ahead, "_put", lambda self, rows: sent.append(rows) or put(self, rows))
    monkeypatch.setattr(ahead.Ahead, "look_ahead", lambda self, one: early.append(one) or look(self, one))
    own = trial(backbone(0.1), Lora(rank=2, layers="all-linear"), "a", 0, epochs=2, batch_size=12, **settings)
    Loop([own]).fit(lambda *_: None)
    monkeypatch.undo()
    return [*own.tuned.state(), *own.trained.losses], len(sent), len(early)


@pytest.mark.parametrize("settings", [{}, {"tokens_per_pass": 40}], ids=["one pass", "several"])
def test_the_same_numbers_come_out(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    plain, usual, none = trained(monkeypatch, False, **settings)
    found, sent, early = trained(monkeypatch, True, **settings)
    for one, other in zip(plain, found, strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))
    assert (none, early) == (0, 12) and sent == usual, "what was sent ahead is not sent again"


def test_a_loss_that_is_no_number_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Loop, "_runs_ahead", lambda self, work: True)
    monkeypatch.setattr(looping, "Unread", Late)
    own = trial(backbone(0.0), Lora(rank=2, layers="all-linear"), "a", 0, epochs=2, batch_size=12)
    before, losses = [one.clone() for one in own.tuned.state()], Loop.losses
    monkeypatch.setattr(Loop, "losses", lambda self, work: [one * float("nan") for one in losses(self, work)])
    with pytest.raises(TunesmithError, match="the loss is nan at step 1"):
        Loop([own]).fit(lambda *_: None)
    assert all(torch.equal(one, other) for one, other in zip(before, own.tuned.state(), strict=True))


def test_a_loss_is_awaited_on_the_gpu_that_computes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which need not be the present one, as with model.device=cuda:1: a copy runs in its source's stream."""

    class Event:
        def record(self, stream: Any = "of the present device") -> None:
            self.stream = stream

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: f"of {device}")
    assert ahead.Unread(torch.tensor(1.0))._done.stream == "of cpu"  # the loss's own device


def test_rows_that_may_yet_change_are_not_sent_ahead() -> None:
    own = trial(backbone(0.0), Lora(rank=2, layers="all-linear"), "a", 0, epochs=2, batch_size=40)
    assert own.next_rows == []
    first = own.take()
    upcoming = own.next_rows
    assert upcoming == own.take() and sorted(first + upcoming) == list(range(64)) and own.next_rows == []

    class Changing(type(own)):  # type: ignore[misc]
        def sent(self, numbers: list[int]) -> Any:
            return super().sent(numbers)

    own.take()
    own.__class__ = Changing
    assert own.next_rows == []


def test_a_batch_knows_where_it_came_from() -> None:
    batch = ragged([[5, 6, 7], [8]], learned=[[False, True, True], [True]])
    assert batch.here is batch and batch.part(0, 2) is batch
    moved = batch.to(torch.device("meta"))
    assert moved.here is batch and moved.ids.device.type == "meta"
    assert moved.items == [1, 2] and moved.places.device.type == "meta"
    assert batch.part(0, 1).ids.tolist() == [8]
