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


def widest(device: torch.device) -> torch.dtype:
    """Return the most exact type of numbers that a device has.

    Args:
        device: any.
    Returns:
        float64; float32 on Apple's GPUs.
    """
    return torch.float32 if device.type == "mps" else torch.float64


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device; to a GPU without waiting for the work that it has before it.

    Args:
        tensor: on any device.
        device: where to.
    Returns:
        The tensor there, in the most exact type of the device where its own is more exact; the same one where it is
        there already.
    """
    if tensor.dtype == torch.float64:
        tensor = tensor.to(widest(device))
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
