"""Attention of a padded batch with keys and values in front of every row's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Prefix = tuple[Tensor, Tensor]  # keys and values, (H or fewer, P, d) each


def widened(
    attend: Callable[..., tuple[Tensor, None]],
    module: nn.Module,
    tensors: tuple[Tensor, Tensor, Tensor],
    mask: Tensor | None,
    prefix: Prefix | None,
    settings: dict[str, Any],
) -> Tensor:
    """Attend to a prefix and to the row's own keys.

    Args:
        attend: the attention function.
        module: the attention layer.
        tensors: query (B, H, T, d), key and value (B, H or fewer, S, d), a cache's part of them first.
        mask: (B or 1, H or 1, T, S), bool or added to the scores; None for the layer's own rule.
        prefix: keys and values, seen by every row; None for none.
        settings: what the layer passes besides.
    Returns:
        (B, T, H, d).
    """
    query, key, value = tensors
    bias = settings.get("position_bias")
    if prefix is None:
        if bias is not None and bias.shape[-1] > key.shape[2]:  # it was made for the longest prefix of the batch
            settings = {**settings, "position_bias": bias[..., -key.shape[2] :]}
        return attend(module, query, key, value, mask, **settings)[0]
    length = prefix[0].shape[1]
    mask = _wider_mask(module, query, key, mask, length, settings)
    if bias is not None:
        wanted = key.shape[2] + length
        missing = max(0, wanted - bias.shape[-1])  # layers without positions, as cross attention, have a bias of zero
        bias = nn.functional.pad(bias[..., -wanted:], (missing, 0))
        settings = {**settings, "position_bias": bias}
    key, value = (
        torch.cat([part.to(own.dtype).expand(len(own), -1, -1, -1), own], dim=2)
        for part, own in zip(prefix, (key, value), strict=True)
    )
    return attend(module, query, key, value, mask, **settings)[0]


def _wider_mask(
    module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, length: int, settings: dict[str, Any]
) -> Tensor | None:
    """Let every query look at the prefix, as far as a sliding window reaches."""
    own, queries, window = key.shape[2], query.shape[2], settings.get("sliding_window")
    if mask is None:
        causal = settings.get("is_causal")
        causal = getattr(module, "is_causal", True) if causal is None else causal
        if not causal or queries == 1:
            return None
        mask = torch.ones(queries, own, dtype=torch.bool, device=query.device).tril(own - queries)[None, None]
    seen = 1.0 if mask.dtype == torch.bool else 0.0
    front = mask.new_full((*mask.shape[:3], length), seen)
    if window is not None:
        places = torch.arange(own - queries, own, device=query.device)[:, None] + length
        far = places - torch.arange(length, device=query.device)[None, :] >= window  # (T, P)
        front = front & ~far if mask.dtype == torch.bool else front.masked_fill(far, torch.finfo(mask.dtype).min)
    return torch.cat([front, mask], dim=-1)
