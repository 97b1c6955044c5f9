"""What is measured layer by layer while a delta trains."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import nn

_BLOCK = re.compile(r"(?:^|\.)(\d+)(?=\.|$)")
REST = "others"  # parameters outside the blocks


def block_of(name: str) -> str:
    """Say which block of a model a parameter belongs to.

    Args:
        name: dotted, of the parameter.
    Returns:
        The name up to the block's number; "others" outside the blocks.
    Example:
        >>> block_of("encoder.layer.3.attention.query.a"), block_of("embeddings.word")
        ('encoder.layer.3', 'others')
    """
    found = _BLOCK.search(name)
    return name[: found.end()] if found else REST


@torch.no_grad()
def gradient_norms(named: Iterable[tuple[str, nn.Parameter]]) -> dict[str, float]:
    """Measure the gradients of every block together.

    Args:
        named: parameters with their names, in the model's order.
    Returns:
        Euclidean norm by block, in that order; blocks without gradients are left out.
    """
    squares: defaultdict[str, float] = defaultdict(float)
    for name, parameter in named:
        if parameter.grad is not None:
            squares[block_of(name)] += float(parameter.grad.double().square().sum())
    return {block: total**0.5 for block, total in squares.items()}
