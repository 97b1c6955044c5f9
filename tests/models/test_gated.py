"""Gated feed-forward layers are told by what they compute."""

import pytest
import torch
from torch import nn

from tunesmith.models.gated import gated_seam
from tunesmith.models.routing import Routing


class Layer(nn.Module):
    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gate_proj, self.up_proj = nn.Linear(8, 16, bias=False), nn.Linear(8, 16, bias=False)
        self.down_proj, self.act_fn = nn.Linear(16, 8, bias=False), activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


@pytest.mark.parametrize(("activation", "taken"), [(nn.SiLU(), True), (nn.GELU(), False)], ids=["silu", "gelu"])
def test_only_the_same_function_is_taken(activation: nn.Module, taken: bool) -> None:
    assert (gated_seam(Layer(activation), Routing()) is not None) == taken


def test_a_map_of_zeros_hides_no_other_activation() -> None:
    layer = Layer(nn.GELU())
    nn.init.zeros_(layer.down_proj.weight)
    assert gated_seam(layer, Routing()) is None
