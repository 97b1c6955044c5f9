"""Draw the next token of every row from random numbers of the row's own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor, MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from tunesmith.tasks.generating import Decoding


class Drawing(LogitsProcessor):  # type: ignore[misc]
    """Add noise to logits so that the largest of them is a draw from their softmax: the Gumbel-max trick.

    Each row has a generator of its own, so what is drawn for it does not depend on the rows beside it, as it does with
    transformers' sampling. The last of the processors, under greedy decoding.

    Args:
        seeds: one per row.
        device: of the logits.
    Source: Maddison, Tarlow and Minka 2014, arXiv:1411.0030, section 2.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self._streams = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Add the noise.

        Args:
            input_ids: (rows, tokens), not looked at.
            scores: (rows, vocabulary), logits.
        Returns:
            (rows, vocabulary), float32.
        """
        waits = torch.empty_like(scores, dtype=torch.float32)
        for row, stream in zip(waits, self._streams, strict=True):
            row.exponential_(generator=stream)
        return scores.float() - waits.log()


def narrowing(decoding: Decoding) -> list[LogitsProcessor]:
    """Return what changes the probabilities before a draw, in transformers' order.

    Args:
        decoding: how.
    Returns:
        Processors of temperature, top-k, top-p and min-p, those that are set.
    """
    found: list[LogitsProcessor] = [TemperatureLogitsWarper(float(decoding.temperature))]
    if decoding.top_k is not None:
        found.append(TopKLogitsWarper(decoding.top_k))
    if decoding.top_p is not None:
        found.append(TopPLogitsWarper(decoding.top_p))
    if decoding.min_p is not None:
        found.append(MinPLogitsWarper(decoding.min_p))
    return found
