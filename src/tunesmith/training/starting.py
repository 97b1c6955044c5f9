"""What a method sees of the training rows before the first step."""

from __future__ import annotations

import torch

from tunesmith.models.backbone import Backbone
from tunesmith.models.delta import Delta
from tunesmith.training.batching import batch_of
from tunesmith.training.corpus import Split

_BATCHES = 8


@torch.no_grad()
def show(backbone: Backbone, delta: Delta, split: Split, batch_size: int, seed: int) -> None:
    """Send a few batches of random training rows through a model, without dropout and without gradients.

    Args:
        backbone: the opened model.
        delta: attached and active.
        split: the training rows.
        batch_size: rows per batch. [count]
        seed: of the choice of rows.
    """
    order = torch.randperm(len(split.tokens), generator=torch.Generator().manual_seed(seed)).tolist()
    backbone.model.eval()
    delta.train(False)
    for rows in [order[start : start + batch_size] for start in range(0, len(order), batch_size)][:_BATCHES]:
        backbone.hidden(batch_of(split, rows))
