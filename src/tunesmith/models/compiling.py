"""Functions of many elementwise operations as one kernel on a GPU, where torch's compiler is at hand."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

_LEAST = 1 << 18  # numbers: kernels are laid out for the first tensor they meet, and few are not worth one

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Let torch compile a function for tensors on a GPU; elsewhere it runs as it is.

    Numbers of rows may change from call to call, other sizes give a kernel of their own. Without a compiler, as on a
    machine without Triton or gcc, the function runs operation by operation on a GPU too; that is said once.

    Args:
        function: of tensors on one device, rows first; elementwise, with sums along the last dimension at most.
    Returns:
        A function that gives the same up to rounding.
    """

    @wraps(function)
    def run(first: Tensor, *rest: Tensor) -> Any:
        if not serves(first):
            return function(first, *rest)
        bare = [one.detach() for one in (first, *rest)]  # kernels know no gradients
        for one in bare:
            if len(one) == len(first):  # which a weight may be by chance: its size is then told to be fixed
                torch._dynamo.maybe_mark_dynamic(one, 0)
        return _kernel(function)(*bare)

    return run  # type: ignore[return-value]


def serves(first: Tensor) -> bool:
    """Say whether a compiled function is worth it, and at hand.

    Args:
        first: the function's first tensor.
    Returns:
        True for many numbers on a GPU that torch can compile for.
    """
    return first.device.type == "cuda" and first.numel() >= _LEAST and has_compiler()


@cache
def _kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, dynamic=False)  # but for the dimensions that are marked


@cache
def has_compiler() -> bool:
    """Say whether torch can compile for the GPU here, by compiling one line.

    Returns:
        True when that gave the right number.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the compiler's own parts, as they are loaded
            found = torch.compile(lambda x: x * 2 + 1)(torch.ones(8, device="cuda"))
            return bool((found == 3).all())
    except Exception as error:  # noqa: BLE001 - torch gives errors of many kinds for a compiler that is not there
        first = (str(error).splitlines() or [""])[0][:200]
        warnings.warn(
            f"torch cannot compile for this GPU ({type(error).__name__}: {first}), so norms, activations and positions "
            "run operation by operation, which is slower. Install Triton and a C compiler.",
            stacklevel=2,
        )
        return False
