"""Products through SciPy's BLAS, on processors where that one is faster than torch's.

torch's wheels for x86 come with MKL, which takes its fast kernels on Intel's processors only. On AMD's with AVX2, the
OpenBLAS in SciPy's wheels is a quarter faster (docs/LOG.md). It has threads of its own, which would wait for torch's,
so it serves where torch computes with one.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_ROWS = 8  # fewer are not worth the way to another library

_library = torch.library.Library("tunesmith", "FRAGMENT")  # an operator of torch, so that profilers and counters see it
_library.define("mapped_into(Tensor x, Tensor weight, Tensor(a!) y, bool add) -> ()")


@cache
def is_faster() -> bool:
    """Say whether SciPy's BLAS is the faster one here: OpenBLAS, on a processor of AMD without AVX-512."""
    return torch.backends.cpu.get_cpu_capability() == "AVX2" and _is_amd() and bool(_openblas())


def serves() -> bool:
    """Say whether products go through SciPy's BLAS now: it is faster here, and torch computes with one thread."""
    return torch.get_num_threads() == 1 and is_faster()


def _is_amd() -> bool:
    """Say who made the processor."""
    try:
        about = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        about = platform.processor()
    return "AuthenticAMD" in about


@cache
def _openblas() -> list[Any]:
    """Find SciPy's OpenBLAS in this process: its own one, else any; none where SciPy has another BLAS."""
    import scipy.linalg.blas  # noqa: F401 - loads its library
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    found = list(ThreadpoolController().select(internal_api="openblas").lib_controllers)
    own = [one for one in found if "scipy" in Path(one.filepath).parent.as_posix()]  # NumPy's keeps its threads
    return own or found


@cache
def _let_one_thread_compute() -> None:
    """Let OpenBLAS compute in the thread that calls, as torch does."""
    for library in _openblas():
        library.set_num_threads(1)


def can_map(x: Tensor, weight: Tensor) -> bool:
    """Say whether a product is one for `map_into`.

    Args:
        x: (N, in).
        weight: (out, in), any strides.
    Returns:
        Whether both lie in a CPU's memory as BLAS wants them, in float32, torch computes with one thread, and it is
        the faster one here.
    """
    return (
        x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and len(x) >= _ROWS
        and type(weight) in (Tensor, torch.nn.Parameter)
        and x.is_contiguous()
        and (weight.is_contiguous() or weight.t().is_contiguous())
        and serves()
    )


def map_into(x: Tensor, weight: Tensor, y: Tensor, add: bool) -> None:
    """Compute x W^T into y, without gradients.

    Args:
        x: (N, in), contiguous.
        weight: (out, in), contiguous or the transpose of what is.
        y: (N, out), contiguous; changed.
        add: whether the product is added to what y holds.
    """
    torch.ops.tunesmith.mapped_into(x, weight, y, add)


@torch.library.impl(_library, "mapped_into", "CPU")
def _mapped_into(x: Tensor, weight: Tensor, y: Tensor, add: bool) -> None:
    from scipy.linalg.blas import sgemm

    _let_one_thread_compute()
    across = weight.is_contiguous()  # BLAS stores columns, so each of our matrices is a transposed one to it
    sgemm(
        1.0,
        (weight.t() if across else weight).detach().numpy(),
        x.detach().numpy().T,
        float(add),
        y.detach().numpy().T,
        trans_a=across,
        overwrite_c=True,
    )
