"""Products inside our own autograd nodes, by the fastest kernel at hand."""

from __future__ import annotations

import torch
from torch import Tensor


def mapped(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute x W^T + b, without gradients.

    float32 on a CPU goes to oneDNN's own product, which is up to a fifth faster than the BLAS behind torch.matmul.

    Args:
        x: (N, in).
        weight: (out, in), any strides; another factor as well.
        bias: (out,) or None.
    Returns:
        (N, out).
    """
    if x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu" and torch.backends.mkldnn.is_available():
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return found
    return x @ weight.t() if bias is None else torch.addmm(bias, x, weight.t())
