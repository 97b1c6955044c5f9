"""Low-rank products of several deltas beside one frozen map."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tunesmith.models import joint, low_rank
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


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("tokens", [12, 13, 16])
def test_rows_begin_where_a_gpu_reads_fast(tokens: int, last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The forms that run on a GPU give what those of a CPU give, and (rank, N) numbers begin at multiples of 8."""
    torch.manual_seed(0)
    monkeypatch.setattr(low_rank, "adds_onto", lambda x, narrow: last)
    monkeypatch.setattr(joint, "adds_onto", lambda x, narrow: last)
    x = torch.randn(tokens, 6, dtype=torch.float64, requires_grad=True)
    weights = [torch.randn(5, 6, dtype=torch.float64) for _ in range(3)]
    found = [factors(8, 0.7), factors(3, 1.5)]
    tensors = [x, *(factor for own in found for factor in own[:2])]
    seen, plain_room, results = [], low_rank.rows_apart, []
    for name in (low_rank, joint):
        monkeypatch.setattr(name, "rows_apart", lambda *given: seen.append(plain_room(*given)) or seen[-1])
    for on_gpu in (False, True):
        monkeypatch.setattr(low_rank, "_on_gpu", lambda x, on_gpu=on_gpu: on_gpu)
        seen.clear()
        parts = [Part(weight, None, own[:2], own[2]) for weight, own in zip(weights, found, strict=False)]
        both = [*joined([*parts, Part(weights[2], None, (), 0.0)], x), one_low_rank(x, weights[0], None, *found[0])]
        results.append([*both, *torch.autograd.grad(sum(y.square().sum() for y in both), tensors)])
        assert all(one.shape[1] == tokens and one.stride(0) == (tokens + 7) // 8 * 8 for one in seen) or not on_gpu
    assert len(seen) == 4, "two forward passes, two backward passes"
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert results[1][-1].is_contiguous(), "the gradient of a factor needs no copy"


class Made(TorchDispatchMode):
    """Counts the new tensors of given sizes that operations make."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.counts = dict.fromkeys(sizes, 0)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = torch.utils._pytree.tree_leaves((args, kwargs))
        before = {one.untyped_storage().data_ptr() for one in given if isinstance(one, torch.Tensor)}
        found = function(*args, **(kwargs or {}))
        for one in torch.utils._pytree.tree_leaves(found):
            if isinstance(one, torch.Tensor) and one.untyped_storage().data_ptr() not in before:
                self.counts[one.numel()] = self.counts.get(one.numel(), 0) + 1
        return found


@pytest.mark.parametrize("onto", [False, True], ids=["frozen product first", "frozen product last"])
def test_products_of_low_rank_are_added_in_place(onto: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the answer's and of the input's size a map makes one tensor in each direction.

    A group makes an answer per map, and the input's gradient once where products add onto it.
    """
    for module in (low_rank, joint):
        monkeypatch.setattr(module, "adds_onto", lambda x, narrow: onto)
    torch.manual_seed(0)
    x, wide, narrow = torch.randn(64, 40, requires_grad=True), 64 * 48, 64 * 40
    down, up = torch.randn(4, 40, requires_grad=True), torch.randn(48, 4, requires_grad=True)
    weights, spans = [torch.randn(48, 40) for _ in range(3)], ([30, 34], [(down, up, 0.5), (down, up, 2.0)])
    parts = [Part(weight, torch.randn(48), (down, up), 0.5) for weight in weights]
    for run, maps, back in (
        (lambda: [one_low_rank(x, weights[0], None, down, up, 0.5)], 1, 1),
        (lambda: [grouped_low_rank(x, weights[0], None, *spans)], 1, 1),
        (lambda: joined(parts, x), 3, 1 if onto else 3),
    ):
        with Made(wide, narrow) as forward:
            found = run()
        grads = [torch.randn_like(one) for one in found]
        with Made(wide, narrow) as backward:
            torch.autograd.grad(found, (x, down, up), grads)
        assert (forward.counts[wide], forward.counts[narrow]) == (maps, 0)
        assert (backward.counts[wide], backward.counts[narrow]) == (0, back)
