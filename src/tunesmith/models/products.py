"""Products with frozen weights inside our own autograd nodes, by the fastest kernel at hand."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

# oneDNN keeps 1,024 compiled kernels; rows of ever new numbers of tokens would fill that with a megabyte each.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")

_chosen = threading.local()


@contextmanager
def narrow_products(dtype: torch.dtype | None) -> Iterator[None]:
    """Compute products with frozen weights in a narrower type inside the block, with sums in float32.

    Their backward passes do the same, wherever they run. Everything else stays as it is.

    Args:
        dtype: torch.bfloat16; None for the type that the model has.
    """
    before = chosen()
    _chosen.dtype = dtype
    try:
        yield
    finally:
        _chosen.dtype = before


def chosen() -> torch.dtype | None:
    """Return the narrower type for products with frozen weights; None for the type that the model has."""
    return getattr(_chosen, "dtype", None)


def frozen_product(x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype | None) -> Tensor:
    """Compute x W^T + b with a frozen W, without gradients.

    Args:
        x: (N, in).
        weight: (out, in), any strides.
        bias: (out,) or None.
        dtype: in which the two are multiplied; None for their own.
    Returns:
        (N, out), dtype of x.
    """
    if dtype is None or x.dtype != torch.float32:
        return mapped(x, weight, bias)
    found = mapped(x.to(dtype), weight.to(dtype)).float()
    return found if bias is None else found.add_(bias)


def mapped(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute x W^T + b, without gradients.

    On a CPU the product goes to oneDNN's own kernel, which is up to a fifth faster than the BLAS behind torch.matmul.

    Args:
        x: (N, in).
        weight: (out, in), any strides.
        bias: (out,) or None.
    Returns:
        (N, out).
    """
    known = x.dtype == weight.dtype and x.dtype in (torch.float32, torch.bfloat16)
    if known and x.device.type == "cpu" and torch.backends.mkldnn.is_available():
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return found
    return x @ weight.t() if bias is None else torch.addmm(bias, x, weight.t())
