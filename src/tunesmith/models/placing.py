"""Where a model lies."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def device_of(model: nn.Module) -> torch.device:
    """Return where a model lives.

    Args:
        model: with at least one parameter.
    Returns:
        The device of its first parameter.
    """
    return next(model.parameters()).device


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device; to a GPU without waiting for the work that it has before it.

    Args:
        tensor: on any device.
        device: where to.
    Returns:
        The tensor there; the same one where it is there already.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
