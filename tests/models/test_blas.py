"""Products through SciPy's BLAS: the same numbers as torch's, only where asked for, seen by torch's counters."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tunesmith.models import blas, products
from tunesmith.models.joint import Part, joined
from tunesmith.models.low_rank import one_low_rank


@pytest.fixture(params=["blas", "torch"])
def served(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let products go to one of the two, whatever the processor."""
    monkeypatch.setattr(blas, "is_faster", lambda: request.param == "blas")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    return str(request.param)


class Seen(TorchDispatchMode):
    """Notes which operators of torch are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("add", [False, True])
def test_a_product_is_right(across: bool, add: bool) -> None:
    torch.manual_seed(0)
    x, weight, y = torch.randn(37, 24), torch.randn(24, 56) if across else torch.randn(56, 24), torch.randn(37, 56)
    weight = weight.t() if across else weight
    wanted = x.double() @ weight.double().t() + (y.double() if add else 0)
    blas.map_into(x, weight, y, add)
    assert torch.allclose(y.double(), wanted, atol=1e-5)


def test_a_product_is_added_onto_what_has_gaps(served: str) -> None:
    x, weight, whole = torch.randn(20, 256), torch.randn(192, 256), torch.randn(20, 384)
    wanted = whole[:, ::2] + x @ weight.t()
    products.add_product(whole[:, ::2], x, weight)
    assert torch.allclose(whole[:, ::2], wanted, atol=1e-4)


def test_operators_of_torch_are_seen() -> None:
    x, weight, y = torch.randn(9, 4), torch.randn(5, 4), torch.empty(9, 5)
    with Seen() as seen:
        blas.map_into(x, weight, y, False)
    assert seen.names == ["tunesmith.mapped_into.default"]


def test_what_it_can_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "is_faster", lambda: True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    x, weight = torch.randn(20, 6), torch.randn(8, 6)
    assert blas.can_map(x, weight) and blas.can_map(torch.randn(20, 8), weight.t())
    assert not blas.can_map(torch.randn(20, 12)[:, ::2], weight), "rows with gaps"
    assert not blas.can_map(x, torch.randn(8, 12)[:, ::2]), "a weight with gaps"
    assert not blas.can_map(x.double(), weight.double()) and not blas.can_map(x[:3], weight)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert not blas.can_map(x, weight)


@pytest.mark.parametrize(
    ("capability", "about", "faster"),
    [
        ("AVX2", "vendor_id : AuthenticAMD", True),
        ("AVX2", "vendor_id : GenuineIntel", False),
        ("AVX512", "vendor_id : AuthenticAMD", False),
    ],
)
def test_where_it_is_faster(capability: str, about: str, faster: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not blas._openblas():
        pytest.skip("SciPy has another BLAS here")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: about)
    assert blas.is_faster.__wrapped__() is faster


def test_low_rank_maps_are_the_same_with_either(served: str) -> None:
    """Two linear maps in one node and one alone, forward and backward, against plain products in float64."""
    torch.manual_seed(0)
    x, grad = torch.randn(40, 256), torch.randn(40, 192)
    maps = [(nn.Linear(256, 192), torch.randn(4, 256) / 16, torch.randn(192, 4)) for _ in range(3)]

    def numbers(dtype: torch.dtype) -> tuple[list[Tensor], Tensor]:
        own = [one.to(dtype).requires_grad_() for one in (x.clone(), *(f for _, *fs in maps for f in fs))]
        return own[1:], own[0]

    factors, inner = numbers(torch.float64)
    wanted = [
        inner @ linear.weight.double().t() + linear.bias.double() + 0.5 * inner @ down.t() @ up.t()
        for (linear, *_), down, up in zip(maps, factors[::2], factors[1::2], strict=True)
    ]
    torch.stack(wanted).sum(0).backward(grad.double())
    own, outer = numbers(torch.float32)
    frozen = [linear.requires_grad_(False) for linear, *_ in maps]
    with Seen() as seen:
        parts = [
            Part(linear.weight, linear.bias, (down, up), 0.5)
            for linear, down, up in zip(frozen[:2], own[:4:2], own[1:4:2], strict=True)
        ]
        found = [*joined(parts, outer), one_low_rank(outer, frozen[2].weight, frozen[2].bias, own[4], own[5], 0.5)]
        torch.stack(found).sum(0).backward(grad)
    assert ("tunesmith.mapped_into.default" in seen.names) == (served == "blas")
    for one, other in zip([*found, outer.grad, *(f.grad for f in own)],
                          [*wanted, inner.grad, *(f.grad for f in factors)], strict=True):  # fmt: skip
        assert one is not None and other is not None and torch.allclose(one.double(), other, atol=2e-3, rtol=1e-4)


def test_numpys_own_blas_keeps_its_threads() -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    found = threadpoolctl.ThreadpoolController().select(internal_api="openblas").lib_controllers
    numpys = [one for one in found if Path(one.filepath).parent.name == "numpy.libs"]
    if not numpys or len(found) == len(numpys):
        pytest.skip("NumPy and SciPy have not an OpenBLAS each here")
    before = numpys[0].num_threads
    numpys[0].set_num_threads(2)
    blas._let_one_thread_compute.__wrapped__()
    assert numpys[0].num_threads == 2 and blas._openblas()[0].num_threads == 1
    numpys[0].set_num_threads(before)
