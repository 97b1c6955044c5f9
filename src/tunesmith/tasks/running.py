"""Passes over many rows where order does not matter: features and probabilities, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor, nn

from tunesmith.data.tokens import TokenRows
from tunesmith.models.backbone import Backbone, length_sorted
from tunesmith.models.layout import ragged
from tunesmith.models.placing import widest
from tunesmith.tasks.base import Task

PASS = 1024, 64  # tokens and rows of one batch at most: larger ones are no faster and take more memory

Advance = Callable[[int], None]


@torch.no_grad()
def extract_features(backbone: Backbone, task: Task, tokens: TokenRows, advance: Advance | None = None) -> Tensor:
    """Compute what the head reads for every row, with the delta that is active.

    Args:
        backbone: the model; put into evaluation mode for the pass.
        task: knows how to pool.
        tokens: the rows.
        advance: told how many rows were done.
    Returns:
        (rows, D), on the CPU.
    """
    training = backbone.model.training
    backbone.model.eval()
    found: Tensor | None = None
    for numbers in length_sorted(tokens.lengths.tolist(), *PASS):
        batch = ragged([torch.from_numpy(tokens[number]) for number in numbers], numbers)
        pooled = task.read(backbone, batch).float().cpu()
        if found is None:
            found = pooled.new_empty(len(tokens), pooled.shape[-1])
        found[batch.index] = pooled
        if advance is not None:
            advance(len(numbers))
    backbone.model.train(training)
    assert found is not None
    return found


@torch.no_grad()
def probabilities(head: nn.Module, features: Tensor) -> Tensor:
    """Apply a head to features.

    Args:
        head: the task's.
        features: (rows, D), on the CPU.
    Returns:
        (rows, C), each row summing to 1, on the CPU.
    """
    training = head.training
    head.eval()
    device = head_tensor(head).device
    parts = [head(part.to(device)).to(widest(device)).softmax(-1).cpu().double() for part in features.split(4096)]
    head.train(training)
    return torch.cat(parts)


def head_tensor(head: nn.Module) -> Tensor:
    """Return a tensor of the type and device that a head computes with.

    Args:
        head: with parameters or buffers.
    Returns:
        The first of them.
    """
    return next(chain(head.parameters(), head.buffers()))
