"""The order in which an epoch goes through its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from tunesmith.core.errors import DataError
from tunesmith.recipe.schema import TrainingSettings

Labels = np.ndarray[Any, np.dtype[np.int64]]


Order = np.ndarray[Any, np.dtype[np.int64]]


class Steps(Sequence[list[int]]):
    """An order cut into steps; the numbers become a list where a step is taken, not before.

    Args:
        order: numbers of rows.
        size: rows of a step; the last one may have fewer. [count]
    """

    def __init__(self, order: Order, size: int) -> None:
        self._order, self._size = order, size

    def __len__(self) -> int:
        return -(-len(self._order) // self._size)

    def __getitem__(self, step: Any) -> Any:
        start = range(len(self))[step] * self._size
        return self._order[start : start + self._size].tolist()

    def first(self, count: int) -> Steps:
        """Leave the last steps out.

        Args:
            count: of those that stay. [count]
        Returns:
            The first ones.
        """
        return Steps(self._order[: count * self._size], self._size)


def random_order(rows: int, generator: torch.Generator) -> Order:
    """Draw an order.

    Args:
        rows: how many. [count]
        generator: of the trial.
    Returns:
        Every row once.
    """
    return torch.randperm(rows, generator=generator).numpy()


def epoch_steps(rows: int, labels: Labels, settings: TrainingSettings, generator: torch.Generator) -> Steps:
    """Draw the order of an epoch as the recipe wants it, and cut it into steps.

    Args:
        rows: how many. [count]
        labels: (rows,), a code per row.
        settings: of the recipe.
        generator: of the trial.
    Returns:
        Numbers of the rows of each step.
    """
    if settings.rows_per_label is not None:
        order = together_by_label(labels, settings.rows_per_label, generator)
    elif settings.balance != "none":
        order = balanced_order(labels, settings.balance, generator)
    else:
        order = random_order(rows, generator)
    return Steps(order, settings.batch_size)


def together_by_label(labels: Labels, rows_per_label: int, generator: torch.Generator) -> Order:
    """Draw an order in which rows of a label stand together, so that a batch holds several of each of its labels.

    A label's rows are shuffled and cut into groups; what is left over joins the label's last group. The groups are
    shuffled. A batch is cut from this order, so at its edges a group may lie in two batches.

    Args:
        labels: (rows,), a code per row.
        rows_per_label: of a group. [count]
        generator: of the trial.
    Returns:
        Every row once.
    """
    groups: list[Order] = []
    for code in np.unique(labels):
        own = np.flatnonzero(labels == code)
        drawn = own[torch.randperm(len(own), generator=generator).numpy()]
        whole = max(1, len(drawn) // rows_per_label)
        cuts = [number * rows_per_label for number in range(whole)]
        groups += [drawn[a:b] for a, b in zip(cuts, [*cuts[1:], None], strict=True)]
    return np.concatenate([groups[number] for number in random_order(len(groups), generator)])


def rows_of_epoch(labels: Labels, balance: str) -> int:
    """Count the rows that an epoch goes through.

    Args:
        labels: (rows,), a code per row.
        balance: none, oversample or undersample.
    Returns:
        Their number. [count]
    """
    counts = np.unique(labels, return_counts=True)[1]
    if balance == "none":
        return len(labels)
    return int(len(counts) * (counts.max() if balance == "oversample" else counts.min()))


def balanced_order(labels: Labels, balance: str, generator: torch.Generator) -> Order:
    """Draw an order in which every label has as many rows.

    Args:
        labels: (rows,), a code per row.
        balance: oversample (as many as the most frequent label has; every row stands equally often, give or take one)
            or undersample (as many as the rarest one has, drawn anew).
        generator: of the trial.
    Returns:
        Rows, some of them several times, or not at all.
    """
    each = rows_of_epoch(labels, balance) // len(np.unique(labels))
    chosen: list[Order] = []
    for code in np.unique(labels):
        own = np.flatnonzero(labels == code)
        drawn = own[torch.randperm(len(own), generator=generator).numpy()]
        chosen.append(np.resize(drawn, each))  # over and over, in the order drawn
    found = np.concatenate(chosen)
    return found[random_order(len(found), generator)]


def check_rows_per_label(labels: Labels, names: list[str], rows_per_label: int, batch_size: int) -> None:
    """Refuse groups that a label or a batch cannot fill.

    Args:
        labels: (rows,), a code per row.
        names: of the codes.
        rows_per_label: of a group. [count]
        batch_size: rows of a step. [count]
    Raises:
        DataError: a label has fewer rows, or a batch would hold fewer than two labels.
    """
    codes, counts = np.unique(labels, return_counts=True)
    least = int(counts.argmin())
    if counts[least] < rows_per_label:
        raise DataError(
            f"training.rows_per_label={rows_per_label}: the label '{names[int(codes[least])]}' has {counts[least]} "
            "training rows. Lower it, or add rows."
        )
    if 2 * rows_per_label > batch_size:
        raise DataError(
            f"training.rows_per_label={rows_per_label}: a step of training.batch_size={batch_size} rows would not hold "
            f"two labels. At most {batch_size // 2} are allowed; lower it, or raise the batch size."
        )
