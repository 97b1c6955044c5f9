"""Products with frozen weights inside our own autograd nodes, by the fastest kernel at hand."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import ClassVar
from weakref import ReferenceType, ref

import torch
from torch import Tensor

from tunesmith.core.errors import RecipeError
from tunesmith.models.blas import can_map, map_into, serves
from tunesmith.models.compiling import compiled

_STEP = 16  # rows of a product come in multiples of this
_SMALL = 1 << 15  # numbers of a weight up to which oneDNN's kernel gains nothing

# oneDNN keeps 1,024 compiled kernels; rows of ever new numbers of tokens would fill that with a megabyte each.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")

_chosen = threading.local()


class Narrow:
    """Products with a frozen weight, computed with fewer bits than its numbers have."""

    types: ClassVar[tuple[torch.dtype, ...]] = (torch.float32,)  # of x and of the weight
    keeps: ClassVar[bool] = True  # rounded weights, by their places in memory: only of those that stay there

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """Multiply.

        Args:
            x: (N, in), of one of the types.
            weight: (out, in), of the same type, any strides; the same numbers in every call.
        Returns:
            (N, out), of the same type.
        """
        raise NotImplementedError


class BFloat16(Narrow):
    """Both sides rounded to bfloat16, sums in float32."""

    keeps: ClassVar[bool] = False

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """Multiply."""
        return mapped(x.bfloat16(), weight.bfloat16()).float()


class Int8(Narrow):
    """Both sides rounded to 8 bits: a scale per row of the weight as it is stored, and one per row of x.

    The rounded weights are kept beside the float32 ones. One copy serves both directions: where the weight's scales lie
    along the sum, they are multiplied into x before it is rounded.

    Source: Dettmers et al. 2022, arXiv:2208.07339, for scales per row on both sides.
    """

    _LEAST = 16  # rows of x: fewer are not worth rounding

    def __init__(self) -> None:
        self._kept: dict[tuple[int, torch.Size], tuple[Tensor, Tensor]] = {}

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """Multiply."""
        if len(x) < self._LEAST:
            return mapped(x, weight)
        across = weight.stride(-1) != 1  # the stored matrix is the other way round
        stored, scales = self._rounded(weight.t() if across else weight)
        if across:
            rounded, own = _rows_in_8_bits(x * scales)
            return _of_8_bits(rounded, stored).mul_(own)
        rounded, own = _rows_in_8_bits(x)
        return _of_8_bits(rounded, stored.t()).mul_(own).mul_(scales)

    def _rounded(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weight in 8 bits, and (rows,) scales; rounded at the first call."""
        key = weight.data_ptr(), weight.shape
        if key not in self._kept:
            stored, scales = _rows_in_8_bits(weight)
            self._kept[key] = stored, scales[:, 0]
        return self._kept[key]


class Float8(Narrow):
    """Both sides rounded to 8-bit floating point (E4M3) with a scale per row, sums in float32; on GPUs that have it.

    The weight is rounded once for each direction, as the sum runs along its other side; both copies together take as
    much memory as the weight in bfloat16.

    Source: Micikevicius et al. 2022, arXiv:2209.05433, for the format.
    """

    types = (torch.bfloat16, torch.float32)
    _STEP = 16  # numbers of rows and columns that the kernel takes come in multiples of this

    def __init__(self) -> None:
        self._kept: dict[tuple[int, torch.Size, tuple[int, ...]], tuple[Tensor, Tensor]] = {}
        self._last: tuple[ReferenceType[Tensor], int, tuple[Tensor, Tensor]] | None = None

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """Multiply."""
        if not len(x) or weight.shape[0] % self._STEP or weight.shape[1] % self._STEP:
            return mapped(x, weight)
        key = weight.data_ptr(), weight.shape, weight.stride()
        if key not in self._kept:
            self._kept[key] = rows_in_float8(weight.contiguous())
        (rounded, own), (stored, scales) = self._of_input(x), self._kept[key]
        found = torch._scaled_mm(
            rounded, stored.t(), scale_a=own, scale_b=scales.t(), out_dtype=torch.bfloat16, use_fast_accum=True
        )
        return found.to(x.dtype)

    def _of_input(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Round x once for all maps that read it."""
        if self._last is None or self._last[0]() is not x or self._last[1] != x._version:
            self._last = ref(x), x._version, rows_in_float8(x.contiguous())
        return self._last[2]


def _in_float8(x: Tensor) -> tuple[Tensor, Tensor]:
    largest = x.abs().amax(1, keepdim=True).float().clamp_min(1e-12)
    return (x.float() * (_LARGEST / largest)).to(torch.float8_e4m3fn), largest / _LARGEST


_LARGEST = torch.finfo(torch.float8_e4m3fn).max
rows_in_float8 = compiled(_in_float8)  # (N, D) float8, contiguous, and the scale of each row, (N, 1), float32


def _rows_in_8_bits(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return (N, D) int8, and the scale of each row, (N, 1); a row of zeros has the scale of the smallest number."""
    scales = x.abs().amax(1, keepdim=True).div_(127).clamp_(min=torch.finfo(x.dtype).tiny)
    return (x / scales).round_().to(torch.int8), scales


def _of_8_bits(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply (N, in) by (in, out), both int8."""
    return torch._int_mm(_few_heights(x), weight)[: len(x)].float()


_Ways = dict[str, tuple[type[Narrow], Callable[[torch.device], bool], str]]
_WAYS: _Ways = {  # how, where it is fast, and what is missing elsewhere
    "bfloat16": (
        BFloat16, lambda device: _is_fast(device, torch.bfloat16),
        "this processor has no instructions for products in bfloat16 (AVX-512)",
    ),
    "int8": (
        Int8, lambda device: device.type == "cpu" and torch.cpu._is_vnni_supported(),
        "it needs a CPU with instructions for sums of 8-bit products (AVX-512 VNNI)",
    ),
    "float8": (
        Float8, lambda device: device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9),
        "it needs a GPU with products of 8-bit floating point (NVIDIA Ada, Hopper or newer)",
    ),
}  # fmt: skip


def narrow_named(name: str, device: torch.device) -> Narrow | None:
    """Find how a recipe wants frozen weights multiplied.

    Args:
        name: float32, bfloat16, int8 or float8.
        device: of the model.
    Returns:
        None for float32.
    Raises:
        RecipeError: the device has no fast form for it.
    """
    if name == "float32":
        return None
    way, fast, missing = _WAYS[name]
    if not fast(device):
        raise RecipeError(
            f"training.precision={name} on {device.type}: {missing}, so it would not be faster. Set it to float32."
        )
    return way()


def _is_fast(device: torch.device, dtype: torch.dtype) -> bool:
    """Say whether a device multiplies numbers of a type by instructions of its own."""
    if device.type != "cpu" or dtype != torch.bfloat16:
        return True
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@contextmanager
def narrow_products(narrow: Narrow | None) -> Iterator[None]:
    """Compute products with frozen weights with fewer bits inside the block.

    Their backward passes do the same, wherever they run. Everything else stays as it is.

    Args:
        narrow: how; None for the type that the model has.
    """
    before = chosen()
    _chosen.narrow = narrow
    try:
        yield
    finally:
        _chosen.narrow = before


def chosen() -> Narrow | None:
    """Return how products with frozen weights are computed with fewer bits; None for the type that the model has."""
    return getattr(_chosen, "narrow", None)


def frozen_product(x: Tensor, weight: Tensor, bias: Tensor | None, narrow: Narrow | None) -> Tensor:
    """Compute x W^T + b with a frozen W, without gradients.

    Args:
        x: (N, in).
        weight: (out, in), any strides.
        bias: (out,) or None.
        narrow: how the two are multiplied with fewer bits; None for their own type.
    Returns:
        (N, out), dtype of x.
    """
    if narrow is None or x.dtype not in narrow.types:
        return mapped(x, weight, bias)
    found = narrow.product(x, weight)
    return found if bias is None else found.add_(bias)


def add_product(y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Add x W^T to what is there, without gradients.

    Args:
        y: (N, out); changed.
        x: (N, in).
        weight: (out, in), any strides.
    Returns:
        y.
    """
    if not (y.is_contiguous() and can_map(x, weight)):
        return y.addmm_(x, weight.t())
    map_into(x, weight, y, add=True)
    return y


def adds_onto(x: Tensor, narrow: Narrow | None) -> bool:
    """Say whether a frozen product is added onto the low-rank one beside it, not the other way round.

    That reads the output once less: the large product's kernel takes in what is there as it writes.

    Args:
        x: what is multiplied.
        narrow: how the frozen product is computed with fewer bits; those kernels cannot add.
    Returns:
        True on a GPU, and on a CPU where the kernel is BLAS's.
    """
    on_cpu = x.device.type == "cpu" and x.dtype == torch.float32 and serves()
    return narrow is None and (x.device.type == "cuda" or on_cpu)


@cache
def _has_wide_kernels() -> bool:
    """Say whether oneDNN's kernels for this processor use AVX-512."""
    return bool(torch.backends.mkldnn.is_available()) and "AVX512" in torch.backends.cpu.get_cpu_capability()


def _few_heights(x: Tensor) -> Tensor:
    """Add rows of zeros up to one of few numbers of rows.

    oneDNN compiles a kernel for every number of rows, in some milliseconds, and keeps 0.6 MB of it twice. Ragged
    batches have ever new numbers; a sixteenth more rows at most are cheaper.
    """
    rows = len(x)
    step = max(_STEP, 1 << max(0, rows.bit_length() - 5))
    more = -rows % step
    if not more or rows < _STEP:
        return x
    found = x.new_empty(rows + more, x.shape[1])
    found[:rows] = x
    found[rows:] = 0
    return found


def is_small(weight: Tensor) -> bool:
    """Say whether a weight is so small that torch's own product serves it best.

    Args:
        weight: (out, in).
    Returns:
        Whether it is of float32 and has few numbers.
    """
    return weight.dtype == torch.float32 and weight.numel() <= _SMALL


def mapped(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute x W^T + b, without gradients.

    On a CPU with AVX-512 the product with a weight that is not small goes to oneDNN's own kernel, which is up to a
    fifth faster there than the BLAS behind torch.matmul; with AVX2 alone it is slower by more than that. There SciPy's
    BLAS serves where it is the faster one.

    Args:
        x: (N, in).
        weight: (out, in), any strides.
        bias: (out,) or None.
    Returns:
        (N, out).
    """
    on_cpu = x.device.type == "cpu" and x.dtype == weight.dtype and x.dtype in (torch.float32, torch.bfloat16)
    if on_cpu and _has_wide_kernels() and not is_small(weight) and _is_fast(x.device, x.dtype):
        found: Tensor = torch.ops.mkldnn._linear_pointwise(_few_heights(x), weight, bias, "none", [], "")
        return found[: len(x)]
    if not is_small(weight) and can_map(x, weight):
        found = x.new_empty(len(x), len(weight)) if bias is None else bias.expand(len(x), -1).contiguous()
        map_into(x, weight, found, add=bias is not None)
        return found
    return x @ weight.t() if bias is None else torch.addmm(bias, x, weight.t())
