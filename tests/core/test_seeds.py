"""Streams of random numbers."""

import pytest
import torch

from tunesmith.core.seeds import seeded


def test_a_stream_goes_on_as_if_nothing_had_been_drawn_and_no_gpu_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object) -> None:
        raise AssertionError("a GPU's stream was seeded")

    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    monkeypatch.setattr(torch.cuda, "manual_seed", refuse)
    found = []
    for _ in range(2):
        with seeded(7):
            found.append(torch.rand(3))
    assert torch.equal(*found) and torch.equal(torch.rand(3), wanted)
