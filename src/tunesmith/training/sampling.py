"""The order in which an epoch goes through its rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tunesmith.core.errors import DataError

Labels = np.ndarray[Any, np.dtype[np.int64]]


def random_order(rows: int, generator: torch.Generator) -> list[int]:
    """Draw an order.

    Args:
        rows: how many. [count]
        generator: of the trial.
    Returns:
        Every row once.
    """
    return torch.randperm(rows, generator=generator).tolist()


def together_by_label(labels: Labels, rows_per_label: int, generator: torch.Generator) -> list[int]:
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
    groups: list[list[int]] = []
    for code in np.unique(labels):
        own = np.flatnonzero(labels == code)
        drawn = own[torch.randperm(len(own), generator=generator).numpy()].tolist()
        whole = max(1, len(drawn) // rows_per_label)
        cuts = [number * rows_per_label for number in range(whole)]
        groups += [drawn[a:b] for a, b in zip(cuts, [*cuts[1:], None], strict=True)]
    return [row for number in random_order(len(groups), generator) for row in groups[number]]


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
