"""Low-rank products of several deltas beside one frozen map."""

import pytest
import torch

from tunesmith.models import low_rank
from tunesmith.models.joint import Part, joined
from tunesmith.models.low_rank import grouped_low_rank, one_low_rank


def factors(rank: int, scale: float) -> tuple[torch.Tensor, torch.Tensor, float]:
    down, up = torch.randn(rank, 6, dtype=torch.float64), torch.randn(5, rank, dtype=torch.float64)
    return down.requires_grad_(), up.requires_grad_(), scale


def plain(x: torch.Tensor, weight: torch.Tensor, sizes: list[int], found: list[tuple]) -> torch.Tensor:
    parts = x.flatten(0, -2).split(sizes)
    out = [
        part @ weight.t() + (own[2] * (part @ own[0].t()) @ own[1].t() if own else 0.0)
        for part, own in zip(parts, found, strict=True)
    ]
    return torch.cat(out).view(*x.shape[:-1], -1)


@pytest.mark.parametrize(
    ("sizes", "ranks"),
    [
        ([4, 4, 4], [2, 2, 2]),
        ([4, 4, 4], [2, 3, 3]),
        ([4, 4, 4], [1, 8, 1]),
        ([4, 4, 4], [2, 0, 3]),
        ([2, 6, 4], [2, 3, 3]),
        ([12], [2]),
    ],
    ids=["one size", "padded ranks", "ranks too far apart", "one without a delta", "several sizes", "one delta"],
)
def test_equal_to_one_product_after_another(sizes: list[int], ranks: list[int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 6, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 6, dtype=torch.float64)
    found = [factors(rank, 0.5 + rank) if rank else () for rank in ranks]
    tensors = [x, *(tensor for own in found for tensor in own[:2])]
    expected = plain(x, weight, sizes, found)
    grad = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, tensors, grad)
    output = grouped_low_rank(x, weight, None, sizes, found)
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
    for own, other in zip(torch.autograd.grad(output, tensors, grad), wanted, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-12)


def test_a_frozen_factor_gets_no_gradient() -> None:
    torch.manual_seed(0)
    first, second = factors(2, 1.0), factors(2, 1.0)
    second[0].requires_grad_(False)
    x, weight = torch.randn(8, 6, dtype=torch.float64), torch.randn(5, 6, dtype=torch.float64)
    grouped_low_rank(x, weight, None, [4, 4], [first, second]).sum().backward()
    assert second[0].grad is None
    assert second[1].grad is not None and first[0].grad is not None


@pytest.mark.parametrize("bias", [False, True])
def test_the_frozen_product_may_come_last(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: both orders of adding give the same, and so do all gradients."""
    torch.manual_seed(0)
    x, (down, up, scale) = torch.randn(2, 6, 6, dtype=torch.float64, requires_grad=True), factors(2, 0.7)
    weight, own = torch.randn(5, 6, dtype=torch.float64), torch.randn(5, dtype=torch.float64) if bias else None
    grad, found = torch.randn(2, 6, 5, dtype=torch.float64), []
    for last in (False, True):
        monkeypatch.setattr(low_rank, "adds_onto", lambda x, narrow, last=last: last)
        y = low_rank.one_low_rank(x, weight, own, down, up, scale)
        found.append([y, *torch.autograd.grad(y, (x, down, up), grad)])
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)


def test_what_comes_next_may_change_the_answer_in_place() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 6, 6, dtype=torch.float64)
    weight, found = torch.randn(5, 6, dtype=torch.float64), factors(2, 0.5)
    wanted = torch.autograd.grad(plain(x, weight, [12], [found]).relu().square().sum(), found[:2])
    one = one_low_rank(x, weight, None, *found)
    (joint,) = joined([Part(weight, None, found[:2], found[2])], x)
    for output in (one, joint):
        own = torch.autograd.grad(output.relu_().square().sum(), found[:2])
        torch.testing.assert_close(own, wanted, rtol=1e-12, atol=1e-12)
