"""Rotary positions in few passes: the same numbers and gradients, in opened models only."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers.models.llama import modeling_llama

from tests.models.test_ending import SHAPE, batch, gradients, tuned
from tunesmith.models.backbone import Backbone
from tunesmith.models.turning import TurningSeam, turned

MODELS: dict[str, Any] = {
    "llama": lambda: transformers.LlamaModel(transformers.LlamaConfig(**SHAPE, num_key_value_heads=2)),
    "qwen2": lambda: transformers.Qwen2Model(transformers.Qwen2Config(**SHAPE, num_key_value_heads=2)),
    "mistral": lambda: transformers.MistralModel(transformers.MistralConfig(**SHAPE, num_key_value_heads=2)),
    "gpt-neox": lambda: transformers.GPTNeoXModel(transformers.GPTNeoXConfig(**SHAPE, rotary_pct=0.5)),
    "gemma": lambda: transformers.GemmaModel(transformers.GemmaConfig(**SHAPE, num_key_value_heads=2, head_dim=8)),
}


def drawn(*shapes: tuple[int, ...]) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("axis", [1, 2])
def test_the_function_is_transformers_own(axis: int) -> None:
    q, k, cos, sin = drawn((2, 4, 5, 8), (2, 2, 5, 8), (2, 5, 8), (2, 5, 8))
    if axis == 2:
        q, k = q.transpose(1, 2), k.transpose(1, 2)
    q, k = q.requires_grad_(), k.requires_grad_()
    wanted = modeling_llama.apply_rotary_pos_emb(q, k, cos, sin, unsqueeze_dim=axis)
    found = turned(q, k, cos, sin, unsqueeze_dim=axis)
    for one, other in zip(wanted, found, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-14)
    first, second = (torch.autograd.grad(sum((part**3).sum() for part in parts), [q, k]) for parts in (wanted, found))
    assert all(torch.allclose(one, other, rtol=0, atol=1e-12) for one, other in zip(first, second, strict=True))


def test_narrow_heads_and_wide_cosines_give_the_wide_type() -> None:
    """As in transformers' function, and the gradient has the type of the heads."""
    q, k = (part.bfloat16().requires_grad_() for part in drawn((1, 2, 3, 4), (1, 1, 3, 4)))
    cos, sin = (part.float() for part in drawn((1, 3, 4), (1, 3, 4)))
    wanted, found = modeling_llama.apply_rotary_pos_emb(q, k, cos, sin), turned(q, k, cos, sin)
    assert [part.dtype for part in found] == [part.dtype for part in wanted] == [torch.float32] * 2
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(wanted, found, strict=True))
    assert torch.autograd.grad(found[0].sum(), q)[0].dtype == torch.bfloat16


def test_its_gradient_is_its_derivative() -> None:
    q, k, cos, sin = drawn((1, 2, 3, 4), (1, 1, 3, 4), (1, 3, 4), (1, 3, 4))
    assert torch.autograd.gradcheck(lambda q, k: turned(q, k, cos, sin), (q.requires_grad_(), k.requires_grad_()))


def seams_of(model: Any) -> list[TurningSeam]:
    return [found for module in model.modules() if isinstance(found := module.__dict__.get("forward"), TurningSeam)]


@pytest.mark.parametrize("name", MODELS)
def test_an_opened_model_gives_the_same(name: str) -> None:
    torch.manual_seed(0)
    core = Backbone(MODELS[name]().eval().double())
    parameters, rows = tuned(core, "default", 1), batch()
    assert len(seams_of(core.model)) == SHAPE["num_hidden_layers"]
    fast = core.hidden(rows)
    found = [fast, *gradients(fast, parameters)]
    for seam in seams_of(core.model):
        seam.forward = type(seam.module).forward
    plain = core.hidden(rows)
    for one, other in zip([plain, *gradients(plain, parameters)], found, strict=True):
        assert (one - other).abs().max() <= 1e-12 * one.abs().max().clamp(min=1.0)


def test_only_opened_models_change() -> None:
    torch.manual_seed(0)
    before, own = modeling_llama.apply_rotary_pos_emb, modeling_llama.LlamaAttention.forward
    model = MODELS["llama"]().eval()
    core = Backbone(model)
    copy = deepcopy(model)
    assert modeling_llama.apply_rotary_pos_emb is before and modeling_llama.LlamaAttention.forward is own
    assert all(seam.module is not other.module for seam, other in zip(seams_of(copy), seams_of(model), strict=True))
    core.seams.close()
    assert seams_of(model) == []
