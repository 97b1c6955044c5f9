"""A quantised base: the weights of linear maps in 8 or 4 bits, through torchao.

int8  one scale per row of W; torchao's int8 tensor.
int4  NF4, the 4-bit code of QLoRA: blocks of 64 numbers share a scale, and the scales are quantised too. Of torchao's
      4-bit forms it is the one that runs on every device and can be read back for the backward pass.

Only what is stored changes. A map computes with W read back, which lives no longer than the product: torchao's own
forward would keep a full copy of every W until the backward pass.

Source: Dettmers et al. 2023, arXiv:2305.14314.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tunesmith.core.errors import CompatibilityError, MissingDependency

BITS = ("int8", "int4")
_BLOCK = 64  # numbers that share a scale in NF4


FULL = "_full_precision"  # attribute of a quantised map that gives its original weight, while that is kept


@dataclass(frozen=True)
class Quantised:
    """What quantising a model did.

    Args:
        bits: "int8" or "int4".
        maps: linear maps that were quantised. [count]
        kept: linear maps in full precision, by why.
        bytes_before: of all weights of the model.
        bytes_after: of all weights of the model.
    """

    bits: str
    maps: int
    kept: dict[str, int]
    bytes_before: int
    bytes_after: int

    @property
    def sentence(self) -> str:
        """For the user."""
        left = ", ".join(f"{count} {why}" for why, count in self.kept.items())
        return (
            f"model.quantization={self.bits}: {self.maps} linear maps are stored in {self.bits[3:]} bits, weights take "
            f"{self.bytes_after / 1e6:.1f} instead of {self.bytes_before / 1e6:.1f} MB; "
            f"in full precision: {left + ', ' if left else ''}embeddings, norms and biases."
        )


@torch.no_grad()
def quantise(model: nn.Module, bits: str, keep: bool = False) -> Quantised:
    """Store the weights of a model's linear maps in fewer bits, in place.

    The map over the vocabulary, embeddings and convolutions stay as they are. transformers' Conv1D becomes nn.Linear.

    Args:
        model: not yet opened at its seams.
        bits: "int8" or "int4".
        keep: hold the original weights beside the quantised ones until `release`, for methods that start from both.
    Returns:
        What was done.
    Raises:
        MissingDependency: torchao is not installed.
        CompatibilityError: a float64 model, or one without linear maps.
    """
    to_fewer = _quantiser(bits)
    if any(parameter.dtype == torch.float64 for parameter in model.parameters()):
        raise CompatibilityError(
            f"model.quantization={bits} with model.dtype=float64: quantised weights are read back as float32 at most. "
            "Choose model.dtype=float32 or bfloat16, or no quantization."
        )
    before = stored_bytes(model)
    _straighten(model)
    find = getattr(model, "get_output_embeddings", None)
    output = find() if find is not None else None
    done, kept = 0, dict[str, int]()
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            kept["convolutions"] = kept.get("convolutions", 0) + 1
        if not isinstance(module, nn.Linear):
            continue
        why = "output map" if module is output else _obstacle(module, bits)
        if why:
            kept[why] = kept.get(why, 0) + 1
        else:
            original = module.weight.detach()
            module.weight = nn.Parameter(to_fewer(original), requires_grad=False)
            if keep:
                module.__dict__[FULL] = original.clone
            done += 1
    if not done:
        raise CompatibilityError(
            f"model.quantization={bits}: {type(model).__name__} has no linear map that can be quantised. Leave it out."
        )
    return Quantised(bits, done, kept, before, stored_bytes(model))


def release(model: nn.Module) -> None:
    """Let go of original weights that `quantise` kept.

    Args:
        model: any.
    """
    for module in model.modules():
        module.__dict__.pop(FULL, None)


def is_quantised(stored: Tensor) -> bool:
    """Say whether a weight is held in fewer bits than it computes with.

    Args:
        stored: as the module holds it.
    Returns:
        True for a torchao tensor.
    """
    return type(stored) is not nn.Parameter and type(stored).dequantize is not Tensor.dequantize


def dense(stored: Tensor) -> Tensor:
    """Read a weight back.

    Args:
        stored: quantised or plain.
    Returns:
        A plain tensor of the same shape; `stored` itself where it is plain.
    """
    if not is_quantised(stored):
        return stored
    with torch.no_grad():
        if hasattr(stored, "get_original_weight"):
            return _read_nf4(stored)
        return stored.dequantize()


def held_linear(x: Tensor, stored: Tensor, bias: Tensor | None) -> Tensor:
    """Map by a quantised weight, with torchao's own kernel where that is the faster one.

    Args:
        x: (N, in).
        stored: W, (out, in), quantised.
        bias: b, (out,), or None.
    Returns:
        (N, out), without a gradient.
    """
    with torch.no_grad():
        return nn.functional.linear(x, dense(stored) if hasattr(stored, "get_original_weight") else stored, bias)


@torch.no_grad()
def requantise(stored: Tensor, change: Tensor) -> tuple[Tensor, float]:
    """Add to a quantised weight.

    Args:
        stored: quantised.
        change: of its shape.
    Returns:
        The sum, quantised alike, and what that lost: the norm of the error over the norm of the sum.
    """
    wanted = dense(stored) + change.to(stored.dtype)
    fewer = _quantiser("int4" if hasattr(stored, "get_original_weight") else "int8")(wanted)
    return fewer, float((dense(fewer) - wanted).norm() / wanted.norm())


def stored_bytes(model: nn.Module) -> int:
    """Count what a model's parameters take.

    Args:
        model: quantised or not.
    Returns:
        Bytes.
    """
    total = 0
    weights: list[Any] = list(model.parameters())
    for parameter in weights:
        parts, _ = parameter.__tensor_flatten__() if is_quantised(parameter) else ([], None)
        tensors = [getattr(parameter, name) for name in parts] or [parameter]
        total += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return total


def _read_nf4(stored: Any) -> Tensor:
    """Read NF4 back through a table of byte to pair of numbers: bit-equal to torchao's way, a quarter of its time."""
    code = stored.nf4
    pairs = torch.stack([code[:, None].expand(16, 16), code.expand(16, 16)], -1).view(256, 2)
    scales = stored.dequantize_scalers(stored.quantized_scalers, stored.quantization_factor, stored.scaler_block_size)
    numbers = pairs.index_select(0, stored.quantized_data.flatten().int())  # (half of all, 2)
    return numbers.view(-1, stored.block_size).mul_(scales[:, None]).view(stored.shape)


def _obstacle(module: nn.Linear, bits: str) -> str:
    """Say why a map cannot be quantised; empty when it can."""
    if type(module) is not nn.Linear:
        return f"{type(module).__name__} maps"
    if is_quantised(module.weight):
        return "maps quantised before"
    if bits == "int4" and module.weight.numel() % (_BLOCK * 2):
        return f"maps whose size is no multiple of {_BLOCK * 2}"
    return ""


def _quantiser(bits: str) -> Callable[[Tensor], Tensor]:
    """Return what turns a plain weight into a quantised one."""
    with _quiet():
        try:
            import torchao.quantization as ao
        except ImportError:
            raise MissingDependency("torchao", "quantization", f"model.quantization={bits}") from None

    def eight(weight: Tensor) -> Tensor:
        holder = nn.Sequential(nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta"))
        holder[0].weight = nn.Parameter(weight, requires_grad=False)
        with _quiet():
            ao.quantize_(holder, ao.Int8WeightOnlyConfig(set_inductor_config=False))
        return holder[0].weight.data

    def four(weight: Tensor) -> Tensor:
        blocks = weight.numel() // _BLOCK
        together = next(size for size in (256, 128, 64, 32, 16, 8, 4, 2, 1) if blocks % size == 0)
        with _quiet():
            return ao.to_nf4(weight.contiguous(), _BLOCK, together)

    return eight if bits == "int8" else four


def _straighten(model: nn.Module) -> None:
    """Turn transformers' Conv1D into nn.Linear: torchao quantises rows, and those lie along its input."""
    for path, module in list(model.named_modules()):
        if isinstance(module, Conv1D):
            wide, high = module.weight.shape
            linear = nn.Linear(wide, high, device="meta")
            linear.weight = nn.Parameter(module.weight.t().contiguous(), requires_grad=False)
            linear.bias = module.bias
            parent, _, leaf = path.rpartition(".")
            setattr(model.get_submodule(parent), leaf, linear.train(module.training))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torchao's remarks on kernels that are not there off the screen."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
