"""Functions that torch compiles for GPUs, tried without one: the sizes that a kernel is made for."""

import pytest
import torch
from torch import Tensor

from tunesmith.models import compiling


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch):
    """Let functions be compiled on the CPU, by a compiler that only counts."""
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    counter = CompileCounter()
    monkeypatch.setattr(compiling, "serves", lambda first: True)
    monkeypatch.setattr(compiling, "_kernel", lambda function: torch.compile(function, dynamic=False, backend=counter))
    yield counter
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler, as its parts are loaded
@pytest.mark.parametrize("rows", [(32, 64, 70), (64, 32, 70)], ids=["first", "later"])
def test_rows_may_be_as_many_as_the_weight_is_wide(kernels, rows: tuple[int, ...]) -> None:
    def scaled(x: Tensor, weight: Tensor, lengths: Tensor) -> Tensor:
        return x * weight * lengths

    run = compiling.compiled(scaled)
    for count in rows:
        x, weight, lengths = torch.randn(count, 32), torch.randn(32), torch.randn(count, 1)
        assert torch.equal(run(x, weight, lengths), scaled(x, weight, lengths))
    assert kernels.frame_count <= 2
