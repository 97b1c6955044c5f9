"""Norms and activations in few passes give what the modules give, and stand in only where they do."""

import pytest
import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

from tunesmith.models.fusing import fused_seam
from tunesmith.models.routing import Routing

NORMS = {"llama": LlamaRMSNorm, "t5": T5LayerNorm, "gemma": GemmaRMSNorm}


def quick() -> Routing:
    routing = Routing()
    routing.quick = True
    return routing


def drawn(kind: str) -> nn.Module:
    torch.manual_seed(0)
    norm: nn.Module = NORMS[kind](24)
    nn.init.uniform_(norm.weight, -1.5, 1.5)
    return norm


@pytest.mark.parametrize("kind", NORMS)
def test_a_frozen_norm(kind: str) -> None:
    norm = drawn(kind).requires_grad_(False)
    seam = fused_seam(norm, quick())
    assert seam is not None
    x = (torch.randn(3, 5, 24) * torch.logspace(-3, 2, 5)[:, None]).requires_grad_()
    grad = torch.randn(3, 5, 24)
    ours, theirs = seam(x), norm(x)
    torch.testing.assert_close(ours, theirs, rtol=2e-6, atol=1e-6)
    found, wanted = (torch.autograd.grad(y, x, grad)[0] for y in (ours, theirs))
    torch.testing.assert_close(found, wanted, rtol=2e-5, atol=1e-5 * wanted.abs().max().item())
    assert type(ours.grad_fn).__name__ == "_RmsNormBackward"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", ["llama", "t5"])  # Gemma's adds 1 to a weight that 16 bits would round
def test_a_norm_in_16_bits_is_as_near_to_the_truth_and_keeps_no_wider_copy(kind: str, dtype: torch.dtype) -> None:
    norm = drawn(kind).requires_grad_(False).to(dtype)
    seam = fused_seam(norm, quick())
    assert seam is not None
    x = (torch.randn(50, 5, 24) * torch.logspace(-2, 1, 5)[:, None]).to(dtype).requires_grad_()
    grad = torch.randn(50, 5, 24).to(dtype)
    wide, weight = x.detach().double().requires_grad_(), norm.weight.double()
    y = wide * (wide.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * weight
    wanted = (y.detach(), *torch.autograd.grad(y, wide, grad.double()))
    found, kept = [], list[torch.Tensor]()
    for module in (norm, seam):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
            y = module(x)
        errors = (y.detach(), *torch.autograd.grad(y, x, grad))
        found.append([float((one.double() - two).norm() / two.norm()) for one, two in zip(errors, wanted, strict=True)])
    assert all(ours <= 1.1 * theirs for theirs, ours in zip(*found, strict=True)), found
    assert sum(tensor.numel() for tensor in kept if tensor.dtype == torch.float32) == 50 * 5


@pytest.mark.parametrize("kind", NORMS)
def test_a_norm_that_trains_or_computes_in_another_type_is_its_own(kind: str) -> None:
    norm = drawn(kind)
    seam = fused_seam(norm, quick())
    assert seam is not None
    x = torch.randn(3, 24)
    assert torch.equal(seam(x), norm(x)) and seam(x).requires_grad
    double = norm.double()
    assert torch.equal(seam(x.double()), double(x.double()))


@pytest.mark.parametrize("name", ["gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python", "quick_gelu", "gelu_10"])
def test_activations_that_are_gelu_are_found_out(name: str) -> None:
    module = ACT2FN[name]
    seam = fused_seam(module, quick())
    assert (seam is None) == (name in ("quick_gelu", "gelu_10")), "an approximation of its own stays"
    if seam is not None:
        x = torch.linspace(-9, 9, 1001, dtype=torch.float32)
        torch.testing.assert_close(seam(x), module(x), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(
    "module",
    [nn.LayerNorm(8, bias=False), nn.LayerNorm(8), nn.RMSNorm(8), nn.GELU(), nn.GroupNorm(2, 8), nn.Linear(8, 8)],
    ids=lambda module: type(module).__name__,
)
def test_other_modules_stay(module: nn.Module) -> None:
    assert fused_seam(module, quick()) is None


def test_a_users_own_call_is_answered_as_the_model_came() -> None:
    norm = drawn("llama").requires_grad_(False)
    routing = Routing()
    seam = fused_seam(norm, routing)
    assert seam is not None
    x = torch.randn(300, 24)
    assert torch.equal(seam(x), norm(x))
    with routing.quickly():
        assert not torch.equal(seam(x), norm(x))


def test_a_norm_that_wants_other_input_stays() -> None:
    class PlaneNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.ones(4)), 1e-5

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.dim() == 4 or x.shape[4]
            return x * self.weight[:, None, None]

    assert fused_seam(PlaneNorm(), quick()) is None
