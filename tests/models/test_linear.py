import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from tunesmith.models.linear import LinearSeam
from tunesmith.models.routing import Routing


@pytest.mark.parametrize("bias", [True, False])
def test_low_rank_product_passes_gradcheck(bias: bool) -> None:
    torch.manual_seed(0)
    module = nn.Linear(5, 7, bias=bias).double().requires_grad_(False)
    seam = LinearSeam("layer", module, Routing())
    x, down, up = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((2, 3, 5), (2, 5), (7, 2)))
    assert torch.autograd.gradcheck(lambda x, a, b: seam.plus_low_rank(x, a, b, 0.5), (x, down, up))
    plain = module(x) + 0.5 * (x @ down.t()) @ up.t()
    assert torch.allclose(seam.plus_low_rank(x, down, up, 0.5), plain, rtol=1e-12)


def test_transposed_weights_look_the_same() -> None:
    module = Conv1D(7, 5).requires_grad_(False)
    seam = LinearSeam("layer", module, Routing())
    x, down, up = torch.randn(4, 5), torch.randn(2, 5), torch.randn(7, 2)
    assert (seam.width_in, seam.width_out) == (5, 7)
    assert torch.allclose(seam.plus_low_rank(x, down, up, 1.0), module(x) + x @ down.t() @ up.t(), atol=1e-5)


def test_nothing_is_saved_for_the_frozen_weight() -> None:
    """The backward pass keeps the input once and the narrow product, nothing of the output's size."""
    module = nn.Linear(64, 256).requires_grad_(False)
    seam = LinearSeam("layer", module, Routing())
    x = torch.randn(128, 64, requires_grad=True)
    down, up = torch.randn(4, 64, requires_grad=True), torch.randn(256, 4, requires_grad=True)
    kept: dict[int, int] = {}
    weights = {tensor.data_ptr() for tensor in (module.weight, down, up)}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        seam.plus_low_rank(x, down, up, 1.0)
    assert sum(kept.values()) == 4 * (128 * 64 + 128 * 4)
