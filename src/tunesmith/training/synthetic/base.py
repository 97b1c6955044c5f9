"""What makes training rows of others: between two rows, in features or inside the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import field_validator
from torch import Tensor, nn

from tunesmith.core.settings import Component, setting

Draw = np.random.Generator


@dataclass(frozen=True)
class Rows:
    """Rows of a step as the head would read them.

    Args:
        features: (R, D).
        targets: (R, C), a probability for every class.
        counts: (C,), training rows of every class.
        index: (R,), their numbers among the training rows.
        bank: of a class, features of its training rows as they were last seen, (n, D), and their numbers, (n,).
        network: from `Synthetic.network`, where there is one.
    """

    features: Tensor
    targets: Tensor
    counts: np.ndarray[Any, Any]
    index: np.ndarray[Any, Any]
    bank: Callable[[int], tuple[Tensor, np.ndarray[Any, Any]]]
    network: nn.Module | None = None


@dataclass(frozen=True)
class Pairs:
    """Which rows of a step are mixed: lam x_i + (1 - lam) x_partner(i).

    Args:
        lam: share of the row itself. [fraction]
        partners: (R,), int64.
    """

    lam: float
    partners: np.ndarray[Any, Any]

    def mixed(self, values: Tensor) -> Tensor:
        """Mix values row by row.

        Args:
            values: (R, ...).
        Returns:
            The same shape.
        """
        return self.lam * values + (1 - self.lam) * values[torch.from_numpy(self.partners).to(values.device)]


class Synthetic(Component):
    """Base of all. Its file registers one subclass with `@register("synthetic")`.

    What is drawn depends on the run's seed and the number of the step alone, so a checkpoint need not hold it.
    """

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    inside: ClassVar[bool] = False  # it mixes in the model, before there are features
    balances: ClassVar[bool] = False  # it evens classes out, which training.balance does in another way
    remembers: ClassVar[bool] = False  # it reads the bank
    mixes_labels: ClassVar[bool] = False  # a row of it has several labels, in shares

    def network(self, width: int) -> tuple[nn.Module, float] | None:
        """Make a network that learns beside the delta.

        Args:
            width: D.
        Returns:
            The network and its learning rate; None where nothing learns.
        """
        return None

    def learn(self, rows: Rows, draw: Draw) -> Tensor | None:
        """Return what the network learns by.

        Args:
            rows: of the step, with the network.
            draw: the step's own.
        Returns:
            A scalar with gradients of the network's parameters; None where these rows teach nothing.
        """
        return None

    def make(self, rows: Rows, draw: Draw) -> tuple[Tensor, Tensor, np.ndarray[Any, Any]]:
        """Return what the head learns in the place of the rows.

        Args:
            rows: of the step.
            draw: the step's own.
        Returns:
            Features (M, D), targets (M, C), and of which row each takes its weight, (M,).
        """
        raise NotImplementedError


def wanted_rows(rows: Rows, most: float, draw: Draw) -> np.ndarray[Any, Any]:
    """Draw how many synthetic rows each row brings, so that the head sees all classes equally often.

    Args:
        rows: of the step.
        most: per row, at most.
        draw: the step's own.
    Returns:
        (R,), n_max / n_c - 1 on average for a row of class c. [count]
    """
    labels = rows.targets.argmax(1).cpu().numpy()
    wanted = np.minimum(most, rows.counts.max() / np.maximum(rows.counts[labels], 1) - 1)
    return np.floor(wanted + draw.random(len(wanted))).astype(np.int64)


class Mixing(Synthetic):
    """Base of ways that mix every row of a step with another one, in the same proportion."""

    mixes_labels: ClassVar[bool] = True

    alpha: float = setting(0.2, "Of the Beta distribution of the share: small ones leave rows almost alone.", gt=0)

    def pairs(self, rows: int, draw: Draw) -> Pairs:
        """Draw the share and every row's partner.

        Args:
            rows: of the step. [count]
            draw: the step's own.
        Returns:
            The pairs.
        """
        return Pairs(float(draw.beta(self.alpha, self.alpha)), draw.permutation(rows))


class MixingInside(Mixing):
    """Base of ways that mix rows token by token inside the model, at a layer drawn for every step."""

    inside: ClassVar[bool] = True

    layers: tuple[int, ...] = setting(
        (0, 1, 2), "Where it may happen: 0 is the input embeddings, k the output of the k-th block.", min_length=1
    )

    @field_validator("layers")
    @classmethod
    def _none_below_zero(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if min(value) < 0:
            raise ValueError("layers are counted from 0, the input embeddings")
        return value

    def layer(self, draw: Draw) -> int:
        """Draw where it happens.

        Args:
            draw: the step's own.
        Returns:
            One of `layers`.
        """
        return int(draw.choice(self.layers))
