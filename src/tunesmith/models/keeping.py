"""Keep for the backward pass only what a cheap operation cannot give again.

Autograd keeps the input of a product, and the activation or norm that made this input keeps its own. The second is
enough: the first is computed again when the backward pass asks for it, from the same numbers in the same order.
Nothing that costs a matrix product is ever computed twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from tunesmith.models.compiling import compiled
from tunesmith.models.fusing import normed
from tunesmith.models.gated import gated

Remake = Callable[[], Tensor]

_counting = threading.local()


class Counted:
    """What forward passes keep for their backward passes, each storage once.

    Args:
        weights: whose storages are there anyway.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self.bytes = 0
        self.remade = 0  # tensors that will be computed again. [count]
        self._seen = {weight.untyped_storage().data_ptr() for weight in weights}

    def keep(self, tensor: Tensor) -> Tensor:
        """Count a tensor; a weight that was gathered for the pass is no more kept than one that is there anyway.

        Args:
            tensor: that is kept.
        Returns:
            The same tensor.
        """
        storage, whole = tensor.untyped_storage(), tensor if tensor._base is None else tensor._base
        if not isinstance(whole, nn.Parameter) and storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor


@contextmanager
def counted(weights: Sequence[Tensor]) -> Iterator[Counted]:
    """Count what the forward passes inside the block keep.

    Args:
        weights: of the model; they are not counted.
    Returns:
        The count; it grows while the block runs.
    """
    before = getattr(_counting, "now", None)
    _counting.now = found = Counted(weights)
    try:
        with saved_tensors_hooks(found.keep, lambda tensor: tensor):
            yield found
    finally:
        _counting.now = before


def spared_memory() -> AbstractContextManager[Any]:
    """Keep less in the forward passes inside the block; their backward passes may run anywhere.

    Returns:
        A context; it does nothing where no gradients are recorded.
    """
    return _Keeping().hooks() if torch.is_grad_enabled() else nullcontext()


class _Keeping:
    """The hooks of one forward pass, and the tensor it made again last: several products may share their input."""

    def __init__(self) -> None:
        self._last: tuple[Any, Tensor] | None = None
        self._counted: Counted | None = getattr(_counting, "now", None)

    def hooks(self) -> saved_tensors_hooks:
        return saved_tensors_hooks(self._pack, self._unpack)

    def _pack(self, kept: Tensor) -> tuple[Any, Any]:
        node = kept.grad_fn
        remake = None if node is None or kept.output_nr else remake_of(node)
        if self._counted is not None:
            self._count(kept, remake)
        return (kept.detach(), kept._version) if remake is None else (node, remake)

    def _count(self, kept: Tensor, remake: Remake | None) -> None:
        assert self._counted is not None
        if remake is None:
            self._counted.keep(kept)
        else:
            self._counted.remade += 1

    def _unpack(self, packed: tuple[Any, Any]) -> Tensor:
        held, how = packed
        if not isinstance(held, Tensor):
            return self._again(held, how)
        if held._version != how:
            raise RuntimeError(f"a tensor {tuple(held.shape)} that the backward pass needs was changed in place")
        return held

    @torch.no_grad()
    def _again(self, node: Any, remake: Remake) -> Tensor:
        if self._last is None or self._last[0] is not node:
            self._last = (node, remake())
        return self._last[1]


def remake_of(node: Any) -> Remake | None:
    """Find out how the output of a node of the graph comes from what the graph keeps anyway.

    Args:
        node: of autograd's graph.
    Returns:
        A function that computes it again; None where that would cost more than a pass over the numbers.
    """
    rule = _RULES.get(node.name())
    return None if rule is None else rule(node)


def _product(node: Any) -> Remake | None:
    """A product keeps each factor for the other one's gradient; a frozen factor's partner has to come from further."""
    (first, _), (second, _) = node.next_functions
    left: Remake | None = (lambda: node._saved_self) if second is not None else remake_of(first)
    right: Remake | None = (lambda: node._saved_other) if first is not None else remake_of(second)
    return None if left is None or right is None else lambda: left() * right()


def _norm(node: Any) -> Remake | None:
    """In 16 bits some processors keep mean and length as narrow as the numbers: too coarse to compute from again."""
    if node._saved_result1.dtype.itemsize == 2:
        return None

    def remake() -> Tensor:
        weight, bias = node._saved_weight, node._saved_bias
        if node._saved_input.dtype.itemsize == 2:
            x, rows = node._saved_input, (node._saved_result1.flatten(0, -2), node._saved_result2.flatten(0, -2))
            return _half_norm(x.flatten(0, -2), *rows, *filter(_given, (weight, bias))).view(x.shape)
        normal = (node._saved_input - node._saved_result1).mul_(node._saved_result2)
        if weight is None:
            return normal
        return normal.mul_(weight) if bias is None else torch.addcmul(bias, normal, weight)

    return remake


def _given(part: Tensor | None) -> bool:
    return part is not None


def _by_rows(x: Tensor, mean: Tensor, inverse: Tensor, *rest: Tensor) -> Tensor:
    normal = (x.float() - mean) * inverse
    for number, part in enumerate(rest):
        normal = normal + part.float() if number else normal * part.float()
    return normal.to(x.dtype)


_half_norm = compiled(_by_rows)


def _cast(node: Any) -> Remake | None:
    before, to = remake_of(node.next_functions[0][0]), node._input_metadata[0].dtype
    return None if before is None else lambda: before().to(to)


_RULES: dict[str, Callable[[Any], Remake | None]] = {
    "MulBackward0": _product,
    "SiluBackward0": lambda node: lambda: nn.functional.silu(node._saved_self),
    "GeluBackward0": lambda node: lambda: nn.functional.gelu(node._saved_self, approximate=node._saved_approximate),
    "NativeLayerNormBackward0": _norm,
    "ToCopyBackward0": _cast,
    "_RmsNormBackward": lambda node: lambda: normed(*node.saved_tensors),
    "_GatedBackward": lambda node: lambda: gated(*node.saved_tensors),
}
