"""Parameters of 16 bits that train with numbers of 32: steps smaller than their last digit would be lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Exact:
    """What an optimizer steps in the place of parameters, which are these numbers rounded.

    Args:
        parameters: that train; those of more than 16 bits stand for themselves.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.numbers = [p if p.dtype.itemsize > 2 else nn.Parameter(p.detach().float()) for p in parameters]
        pairs = zip(parameters, self.numbers, strict=True)
        self._pairs = [(rounded, number) for rounded, number in pairs if rounded is not number]

    @torch.no_grad()
    def take(self) -> None:
        """Before a step: take gradients over, and the values that somebody else has changed since."""
        for rounded, number in self._pairs:
            number.copy_(torch.where(number.to(rounded.dtype) == rounded, number, rounded.float()))
            number.grad = None if rounded.grad is None else rounded.grad.float()

    @torch.no_grad()
    def give(self) -> None:
        """After a step: round the numbers and their gradients."""
        for rounded, number in self._pairs:
            rounded.copy_(number)
            if number.grad is not None and rounded.grad is not None:
                rounded.grad.copy_(number.grad)
            number.grad = None

    def state(self) -> list[Tensor]:
        """Return the numbers of 16-bit parameters.

        Returns:
            A state for `resume`.
        """
        return [number.detach() for _, number in self._pairs]

    @torch.no_grad()
    def resume(self, state: Sequence[Any]) -> None:
        """Go on from a state.

        Args:
            state: from `state`, of the same parameters; an empty one begins with the parameters as they are.
        """
        for (_, number), kept in zip(self._pairs, state, strict=False):
            number.copy_(kept)
