"""What a regularizer is: what it adds to the loss, puts in the place of parameters, or averages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from tunesmith.core.settings import Component, setting


class Regularizer(Component):
    """Base of every regularizer. Its file registers one subclass with `@register("regularizers")`.

    A regularizer answers one of the verbs; of the others it keeps what stands here. What lasts from step to step, the
    average and the stream of random numbers, is kept for it and stands in checkpoints.
    """

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    reads_start: ClassVar[bool] = False  # where parameters began
    averages: ClassVar[bool] = False  # it answers with an average of the steps
    makes_noise: ClassVar[bool] = False  # on embeddings
    gates: ClassVar[bool] = False  # parameters have gates that learn, and answer through them
    sparsifies: ClassVar[bool] = False  # numbers become exactly zero

    def penalty(self, now: Sequence[Tensor], start: Sequence[Tensor]) -> Tensor | None:
        """Return what is added to the loss of a step.

        Args:
            now: parameters.
            start: where they began.
        Returns:
            A scalar that carries gradients, or None.
        """
        return None

    def stand_in(self, now: Tensor, start: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor] | None:
        """Return what a parameter's place is taken by in a step.

        Args:
            now: the parameter.
            start: where it began.
            draw: stream of random numbers.
        Returns:
            The value, and its derivative by the parameter; None where the parameter keeps its place.
        """
        return None

    def share(self, step: int, total: int) -> float:
        """Return the share of the new parameters in the average.

        Args:
            step: just made, 1 for the first.
            total: steps of the run. [count]
        Returns:
            1 where the average begins anew.
        """
        return 1.0

    def noise(self, shape: torch.Size, lengths: Tensor, draw: torch.Generator) -> Tensor:
        """Draw what is added to embeddings.

        Args:
            shape: (N, D).
            lengths: (N,), of each token's row. [tokens]
            draw: stream of random numbers.
        Returns:
            (N, D), float32.
        """
        raise NotImplementedError

    def thin(self, now: Tensor, rank: Tensor, progress: float) -> None:
        """Set numbers of a parameter to zero after an update, in place.

        Args:
            now: the parameter.
            rank: of the same shape, uniform numbers that were drawn once.
            progress: share of the steps made. [fraction]
        """


class OnParameters(Regularizer):
    """Base of regularizers of parameters: the user says which."""

    on: Literal["all", "delta", "head"] = setting("all", "What it acts on.")


class Gating(OnParameters):
    """Base of those that give parameters gates that learn; `training.gates` keeps the gates' logits, log a, for it."""

    gates: ClassVar[bool] = True

    strength: float = setting(0.1, "Factor of the expected share of numbers that are not zero.", gt=0)
    rate: float = setting(0.1, "Learning rate of the gates.", gt=0, le=10)

    @property
    def start(self) -> float:
        """Log a at the start."""
        raise NotImplementedError

    def shape(self, one: Tensor) -> tuple[int, ...]:
        """Say how many gates a parameter has.

        Args:
            one: the parameter.
        Returns:
            A shape that spreads over the parameter's.
        """
        raise NotImplementedError

    def drawn(self, log_a: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Draw gates.

        Args:
            log_a: of the gates.
            uniform: as many numbers between 0 and 1.
        Returns:
            The gates, and their derivatives by log a.
        """
        raise NotImplementedError

    def settled(self, log_a: Tensor) -> Tensor:
        """Return the gates that answer.

        Args:
            log_a: of the gates.
        Returns:
            The same shape.
        """
        raise NotImplementedError

    def open_share(self, log_a: Tensor) -> Tensor:
        """Return every gate's probability of not being zero.

        Args:
            log_a: of the gates.
        Returns:
            The same shape.
        """
        raise NotImplementedError
