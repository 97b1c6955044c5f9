"""Attention over a flat batch on a GPU: one kernel that takes rows of any length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tunesmith.models.layout import Layout
from tunesmith.models.prefixed import Prefix
from tunesmith.models.ragged_attention import Rule
from tunesmith.models.sight import Sight

_WIDEST = 256  # of a head that the kernel takes
_attend = torch.ops.aten._flash_attention_forward
_attend_back = torch.ops.aten._flash_attention_backward


def takes_rows(q: Tensor, v: Tensor, rule: Rule) -> bool:
    """Say whether the kernel serves an attention call.

    Args:
        q: (N, H, d).
        v: (N, H or fewer, d).
        rule: of the call.
    Returns:
        Whether it runs on a GPU that has the kernel, in 16 bits, with heads of a width that it knows, without dropout.
    """
    half = q.dtype in (torch.bfloat16, torch.float16) and q.shape[-1] == v.shape[-1]
    fits = half and q.shape[-1] <= _WIDEST and q.shape[-1] % 8 == 0 and rule.dropout == 0.0
    return fits and q.device.type == "cuda" and _has_kernel(q.device)


@lru_cache
def _has_kernel(device: torch.device) -> bool:
    return torch.backends.cuda.is_flash_attention_available() and torch.cuda.get_device_capability(device) >= (8, 0)


def attend_rows(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, rule: Rule, prefixes: Mapping[str | None, Prefix]
) -> Tensor:
    """Attend within each row of a flat batch; rows also see what stands in front of their delta's.

    Args:
        q: (N, H, d).
        k: (N, H or fewer, d).
        v: as k.
        layout: of the batch.
        rule: of the call.
        prefixes: keys and values in front of the rows, (H or fewer, P, d) each, by the rows' name in the layout.
    Returns:
        (N, H, d).
    """
    sight = layout.sight({name: keys.shape[1] for name, (keys, _) in prefixes.items()}, q.device)
    given = [prefixes[front.name] for front in sight.fronts if front.lead is None]
    parts = [part.to(k.dtype).transpose(0, 1) for prefix in given for part in prefix]  # (P, H or fewer, d)
    found: Tensor = _Rows.apply(q, k, v, sight, rule, *parts)  # type: ignore[no-untyped-call]
    return found


class _Rows(torch.autograd.Function):
    """The kernel, and what every row sees before its own keys; only the batch's own q, k, v and output are kept."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, sight: Sight, rule: Rule, *given: Tensor) -> Tensor:
        keys, values = sight.seen(k, given[::2]), sight.seen(v, given[1::2])
        out, logs, *drawn, _ = _attend(
            q, keys, values, *sight.bounds, 0.0, rule.causal, False, scale=rule.scale, **_window(rule)
        )
        ctx.save_for_backward(q, k, v, out, logs, *drawn, *given)
        ctx.sight, ctx.rule = sight, rule
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, logs, seed, offset, *given = ctx.saved_tensors
        sight, rule = ctx.sight, ctx.rule
        keys, values = sight.seen(k, given[::2]), sight.seen(v, given[1::2])
        with _in_one_order():
            d_q, *rest = _attend_back(
                grad.contiguous(), q, keys, values, out, logs, *sight.bounds, 0.0, rule.causal, seed, offset,
                scale=rule.scale, **_window(rule),
            )  # fmt: skip
        (d_k, own_k), (d_v, own_v) = (sight.seen_back(part) for part in rest)
        return d_q, d_k, d_v, None, None, *(part for pair in zip(own_k, own_v, strict=True) for part in pair)


def _window(rule: Rule) -> dict[str, int]:
    if rule.window is None:
        return {}
    return {"window_size_left": rule.window - 1, "window_size_right": 0 if rule.causal else rule.window - 1}


@contextmanager
def _in_one_order() -> Iterator[None]:
    """Let the kernel sum in one order inside the block, so that equal runs give equal bits."""
    before, quiet = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    settings: Any = torch.utils.deterministic
    filled = settings.fill_uninitialized_memory
    settings.fill_uninitialized_memory = False  # all of it is written
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=quiet)
        settings.fill_uninitialized_memory = filled
