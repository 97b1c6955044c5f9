"""What stands in for the forward of modules without linear weights while a model is open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tunesmith.models.dropout import DropoutSeam
from tunesmith.models.fusing import fused_seam
from tunesmith.models.gated import gated_seam
from tunesmith.models.routing import Routing
from tunesmith.models.statistics import FrozenStatistics
from tunesmith.models.turning import turning_seam


def instead_of(module: nn.Module, routing: Routing) -> Callable[..., Any] | None:
    """Find what stands in for a module.

    Args:
        module: any module.
        routing: of the model.
    Returns:
        It; None for a module that runs as it is.
    """
    if isinstance(module, nn.Dropout):
        return DropoutSeam(module, routing)
    if FrozenStatistics.fits(module):
        return FrozenStatistics(module)
    if isinstance(module, nn.TransformerEncoder | nn.TransformerEncoderLayer):
        return StepByStep(module)
    return fused_seam(module, routing) or turning_seam(module, routing) or gated_seam(module, routing)


class StepByStep:
    """Stands in for the forward of torch's own encoder, which in evaluation reads weights without calling their maps.

    Args:
        module: the encoder, or one layer of it.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, *args: Any, **settings: Any) -> Any:
        """Run map after map, as in training, so that deltas are seen."""
        before = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            return type(self.module).forward(self.module, *args, **settings)
        finally:
            torch.backends.mha.set_fastpath_enabled(before)
