import torch
from torch import nn

from tunesmith.models.dropout import DropoutSource, drop, drops_by_function, set_dropout


def test_rate_scale_and_gradient() -> None:
    x = torch.ones(400, 500, requires_grad=True)
    y = drop(x, 0.1, DropoutSource(0))
    kept = y != 0
    share = kept.float().mean().item()
    assert abs(share - 0.9) < 5 * (0.09 / x.numel()) ** 0.5  # five standard errors
    assert torch.allclose(y[kept], torch.tensor(1 / 0.9))
    y.sum().backward()
    assert torch.equal(x.grad != 0, kept) and torch.allclose(x.grad[kept], torch.tensor(1 / 0.9))


def test_same_seed_same_mask() -> None:
    x = torch.randn(7, 3)
    assert torch.equal(drop(x, 0.5, DropoutSource(1)), drop(x, 0.5, DropoutSource(1)))
    source = DropoutSource(1)
    assert not torch.equal(drop(x, 0.5, source), drop(x, 0.5, source))


def test_no_rate_is_the_same_tensor() -> None:
    x = torch.randn(3)
    assert drop(x, 0.0, DropoutSource()) is x


def test_a_rate_next_to_one_drops_all_but_nothing() -> None:
    assert DropoutSource(0).keep(torch.Size([1000]), 0.999999).sum() <= 1


def test_a_stream_goes_back_to_before_a_device_first_drew_from_it() -> None:
    """As blocks that run again for their gradients need it, whose first run may be the first to draw on a GPU."""
    source, device = DropoutSource(3), torch.device("cpu")
    begin = source.state
    first = torch.rand(4, generator=source._on(device))
    middle = source.state
    second = torch.rand(4, generator=source._on(device))
    for state, wanted in ((begin, first), (middle, second)):
        source.state = state
        assert torch.equal(torch.rand(4, generator=source._on(device)), wanted)


def test_a_stream_goes_on_without_a_device_that_is_not_here() -> None:
    """A checkpoint of another machine: what its GPU drew goes on nowhere, and a device here begins with the seed."""
    source = DropoutSource(3)
    drop(torch.ones(9), 0.5, source)
    found = DropoutSource(0)
    found.state = source.state | {"others": {"cuda:99": torch.zeros(16, dtype=torch.uint8)}}
    shape = torch.Size((40,))
    assert torch.equal(found.keep(shape, 0.5), source.keep(shape, 0.5))
    assert found._on(torch.device("cpu")).initial_seed() == 3 and not found.state["others"].keys() - {"cpu"}


def test_a_rate_may_be_a_whole_number() -> None:
    """A config.json may say 0; a switch that is called like a rate is none."""
    module = nn.Identity()
    module.attention_dropout, module.use_dropout = 0, True
    assert not drops_by_function(module)
    set_dropout(module, 0.1)
    assert module.attention_dropout == 0.1 and module.use_dropout is True and drops_by_function(module)
