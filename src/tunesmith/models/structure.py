"""How a model is built: its repeated blocks and the maps that end their sublayers, read off the module tree."""

from __future__ import annotations

from torch import nn

from tunesmith.core.errors import TargetError
from tunesmith.models.linear import ConvSeam, EmbeddingSeam, LinearSeam


def stacks(model: nn.Module) -> list[list[str]]:
    """Find the stacks of like blocks, outermost ones.

    Args:
        model: any torch module.
    Returns:
        Per stack, the dotted names of its blocks, first to last; none for a model that is not stacked.
    """
    found: list[list[str]] = []
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{block}.") for stack in found for block in stack)
        alike = isinstance(module, nn.ModuleList) and len({type(child) for child in module}) == 1
        if alike and not inside and any(True for _ in module.parameters()):
            found.append([f"{path}.{number}" if path else str(number) for number in range(len(module))])
    return found


def attention_modules(model: nn.Module) -> list[str]:
    """Find the modules that compute attention: the innermost ones whose class says so.

    Args:
        model: any torch module.
    Returns:
        Dotted names, in the model's order.
    """
    named = [path for path, module in model.named_modules() if "Attention" in type(module).__name__]
    return [path for path in named if not any(other.startswith(f"{path}.") for other in named)]


def sublayer_outputs(model: nn.Module, linear: dict[str, LinearSeam]) -> dict[str, list[str]]:
    """Find the maps through which attention and feed-forward write back to the residual stream.

    In every block the last map of an attention sublayer, and the block's last map.

    Args:
        model: the model.
        linear: its linear maps by path.
    Returns:
        "attention" and "feed-forward", the paths of each, in the model's order.
    Raises:
        TargetError: the model has no stack of blocks with attention.
    """
    plain = [path for path, seam in linear.items() if not isinstance(seam, ConvSeam | EmbeddingSeam)]
    attention, feed_forward = [], []
    for block in (block for stack in stacks(model) for block in stack):
        inside = [path for path in plain if path.startswith(f"{block}.")]
        for part in _parts(model.get_submodule(block)):
            attends = attention_modules(model.get_submodule(f"{block}.{part}"))
            mine = [path for path in inside if path.startswith(f"{block}.{part}.")]
            if attends and mine:
                attention.append(mine[-1])
        if inside and inside[-1] not in attention:
            feed_forward.append(inside[-1])
    if not attention or not feed_forward:
        raise TargetError(
            f"layers: {type(model).__name__} has no stack of blocks with attention and feed-forward maps. Name the "
            "layers to adapt."
        )
    return {"attention": attention, "feed-forward": feed_forward}


def _parts(block: nn.Module) -> list[str]:
    """Return the sublayers of a block; T5 keeps them in a list of their own."""
    names = []
    for name, child in block.named_children():
        names += [f"{name}.{number}" for number in range(len(child))] if isinstance(child, nn.ModuleList) else [name]
    return names


def is_causal(model: nn.Module) -> bool:
    """Say whether tokens see only what came before.

    Args:
        model: a transformers model or a part of one.
    Returns:
        True for decoders.
    """
    flags = [module.is_causal for module in model.modules() if isinstance(getattr(module, "is_causal", None), bool)]
    return bool(flags) and all(flags)
