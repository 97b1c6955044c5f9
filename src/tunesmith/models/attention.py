"""The attention seam: one attention function, registered with transformers' attention interface.

Under a layout the batch is flat and attention is the only place that knows rows: equally long rows form a group
and each group is one attention product. Without a layout the call goes to transformers' own function.
"""

from __future__ import annotations

import threading
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tunesmith.core.errors import CompatibilityError
from tunesmith.models.dropout import DropoutSource, drop
from tunesmith.models.layout import Layout
from tunesmith.models.routing import Routing

NAME = "tunesmith"


class AttentionSeam:
    """What the attention function needs to know about one opened model.

    Args:
        routing: holds the layout while a flat batch runs.
        dropout: where attention dropout is drawn.
    """

    def __init__(self, routing: Routing, dropout: DropoutSource) -> None:
        self.routing = routing
        self.dropout = dropout


_seams: WeakKeyDictionary[nn.Module, AttentionSeam] = WeakKeyDictionary()
_building = threading.local()  # the mask function is not told which model asks


def open_attention(model: nn.Module, seam: AttentionSeam) -> None:
    """Let every module of a model find its attention seam.

    Args:
        model: the model to open.
        seam: what its attention calls will read.
    """
    for module in model.modules():
        _seams[module] = seam


def close_attention(model: nn.Module) -> None:
    """Forget a model's attention seam.

    Args:
        model: a model that was opened.
    """
    for module in model.modules():
        _seams.pop(module, None)


class flat_rows:  # noqa: N801 - reads as a verb: with flat_rows(routing, layout)
    """Run the forward passes of a block over a flat batch.

    Args:
        routing: of the opened model.
        layout: where the rows lie.
    """

    def __init__(self, routing: Routing, layout: Layout) -> None:
        self.routing, self.layout = routing, layout

    def __enter__(self) -> None:
        self.routing.layout = self.layout
        _building.flat = True

    def __exit__(self, *error: object) -> None:
        self.routing.layout = None
        _building.flat = False


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention that knows the rows of a flat batch.

    Args:
        module: the attention layer that calls.
        query: (B, H, T, D / H); under a layout B = 1 and T = N.
        key: (B, H or fewer, T, D / H).
        value: as key.
        attention_mask: the model's mask; not used under a layout.
        dropout: probability of dropping an attention weight. [fraction]
        scaling: of the products; 1 / sqrt(D / H) when None.
        **settings: what else the model passes: is_causal, sliding_window, ...
    Returns:
        (B, T, H, D / H), and None for the attention weights.
    Raises:
        CompatibilityError: the model wants something of attention that the flat path does not do.
    """
    seam = _seams.get(module)
    layout = seam.routing.layout if seam else None
    if seam is None or layout is None:
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **settings
        )
        return output, None
    _refuse_unknown(module, settings)
    causal = settings.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    window = settings.get("sliding_window")
    sizes = [length * rows for length, rows in layout.groups]
    pieces = [part.split(sizes, dim=2) for part in (query, key, value)]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    outputs = [
        _group(q, k, v, layout.groups[i], _Rule(bool(causal), window, scale, dropout, seam.dropout))
        for i, (q, k, v) in enumerate(zip(*pieces, strict=True))
    ]
    return torch.cat(outputs, dim=0).unsqueeze(0), None  # (1, N, H, D / H)


class _Rule:
    """How one attention call attends."""

    def __init__(
        self, causal: bool, window: int | None, scale: float, dropout: float, source: DropoutSource
    ) -> None:
        self.causal, self.window, self.scale, self.dropout, self.source = causal, window, scale, dropout, source

    def mask(self, length: int, device: torch.device) -> Tensor | None:
        """Return (T, T), True where a query may look at a key; None when it may look at all."""
        windowed = self.window is not None and length > self.window
        if not self.causal and not windowed:
            return None
        distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)[None, :]
        allowed = distance >= 0 if self.causal else torch.ones_like(distance, dtype=torch.bool)
        return allowed & (distance.abs() < self.window) if windowed and self.window else allowed


def _group(q: Tensor, k: Tensor, v: Tensor, shape: tuple[int, int], rule: _Rule) -> Tensor:
    """Attend within each of n rows of T tokens: (1, H, n T, d) -> (n T, H, d)."""
    length, rows = shape
    q, k, v = (part[0].unflatten(1, (rows, length)).transpose(0, 1) for part in (q, k, v))  # (n, H, T, d)
    heads = q.shape[1]
    if k.shape[1] != heads:
        k, v = (part.repeat_interleave(heads // part.shape[1], dim=1) for part in (k, v))
    mask = rule.mask(length, q.device)
    if rule.dropout > 0.0 and q.device.type == "cpu":
        out = _dropped_attention(q, k, v, mask, rule)
    else:
        out = nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=rule.dropout, scale=rule.scale
        )
    return out.transpose(1, 2).reshape(rows * length, heads, -1)


def _dropped_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, rule: _Rule) -> Tensor:
    scores = (q * rule.scale) @ k.transpose(-1, -2)  # (n, H, T, T)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return drop(scores.softmax(-1), rule.dropout, rule.source) @ v


_HARMLESS = {"is_causal", "sliding_window", "position_ids", "use_cache", "cache_position", "output_attentions"}


def _refuse_unknown(module: nn.Module, settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        if name not in _HARMLESS and value is not None and value is not False:
            raise CompatibilityError(
                f"{type(module).__name__} passes '{name}' to attention, which the flat path does not know."
            )


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    if getattr(_building, "flat", False):
        return None
    mask: Tensor | None = sdpa_mask(*args, **kwargs)
    return mask


ALL_ATTENTION_FUNCTIONS.register(NAME, attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, _mask)
