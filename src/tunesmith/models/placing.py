"""Where a model lies."""

from __future__ import annotations

import torch
from torch import nn


def device_of(model: nn.Module) -> torch.device:
    """Return where a model lives.

    Args:
        model: with at least one parameter.
    Returns:
        The device of its first parameter.
    """
    return next(model.parameters()).device
