"""What a scheme is: it makes the trial whose steps learn from more than the labelled rows and the task's loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from tunesmith.core.errors import RecipeError
from tunesmith.core.settings import Component, setting
from tunesmith.models.layout import RaggedBatch, ragged
from tunesmith.tasks.rejecting import plain
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.batching import Sent
from tunesmith.training.corpus import Split, Unlabelled
from tunesmith.training.trial import Trial


@dataclass(frozen=True)
class Given:
    """What a run gives to a scheme.

    Args:
        names: of the labels that train, by code.
        folder: the recipe's, for relative paths.
        unlabelled: rows without a label, where the recipe names a file of them.
    """

    names: Sequence[str]
    folder: Path
    unlabelled: Unlabelled | None = None


class Scheme(Component):
    """Base of every scheme. Its file registers one subclass; a recipe chooses it in the section of its kind."""

    name: ClassVar[str]
    section: ClassVar[str]  # key of the recipe, and kind
    paper: ClassVar[str] = ""
    reads_unlabelled: ClassVar[Literal["always", "never", "where given"]] = "always"

    compare: bool = setting(
        True, "Train the same run without the scheme in the same pass, and measure the gain over it."
    )
    audit: bool = setting(
        False, "Read the label column of data.unlabelled too, only to count how many pseudo-labels are right."
    )

    def trial(self, given: Given, facts: dict[str, Any]) -> SchemeTrial:
        """Make the trial.

        Args:
            given: of the run.
            facts: arguments of `Trial`.
        Returns:
            The trial, ready to fit.
        """
        raise NotImplementedError


class SchemeTrial(Trial):
    """A trial that can say what its scheme did."""

    @property
    def head(self) -> nn.Module:
        """The head that trains: without the threshold of what is out of scope, which no row teaches."""
        return plain(self.tuned.head)

    def check_shared(self) -> None:
        """Refuse: what a scheme makes of a step hangs on all its rows.

        Raises:
            RecipeError: always.
        """
        raise RecipeError(
            "several processes: semi_supervised and dual_learning compare and choose among all rows of a step, which "
            "no process has. Train in one process."
        )

    def meet(self, others: Sequence[SchemeTrial]) -> None:
        """Get to know the candidates that train in the same pass; by default each learns for itself.

        Args:
            others: trials of the same kind of scheme, itself among them.
        """

    def findings(self, names: Sequence[str]) -> dict[str, Any]:
        """Return what the scheme did.

        Args:
            names: of the labels, by code.
        Returns:
            Plain values.
        """
        raise NotImplementedError

    def notes(self) -> list[str]:
        """Return what the user should know of it.

        Returns:
            Sentences.
        """
        return []

    def taught(
        self, outputs: Tensor, batch: RaggedBatch, rows: Tensor, labels: Tensor, tuned: Tuned | None = None
    ) -> Tensor:
        """Compute the task's own loss of some rows.

        Args:
            outputs: (R, D), of the whole batch.
            batch: R rows.
            rows: (n,), which of them, at least one.
            labels: (n,), of those rows.
            tuned: whose head is asked; the trial's own when None.
        Returns:
            A scalar, the mean over the n rows.
        """
        order = rows.argsort()
        rows, labels, ends = rows[order], labels[order], batch.layout.starts
        parts = [batch.ids[ends[number] : ends[number + 1]] for number in rows.tolist()]
        weights = None if batch.weights is None else batch.weights[rows].tolist()
        numbers = batch.index[rows].tolist()
        own = ragged(parts, numbers, labels.tolist(), weights=weights)  # of rising length already: in this order
        return (tuned or self.tuned).loss_of(outputs[rows], own.to(outputs.device), self.settings.label_smoothing)


@dataclass(frozen=True)
class Beside:
    """Rows that stand in a step beside the labelled ones, in one or several views.

    In a batch they have labels below 0, from which `places` reads view and row.

    Args:
        views: of the same rows, each with tokens of its own.
    """

    views: tuple[Split, ...]

    @classmethod
    def of(cls, split: Split, tokens: Sequence[Any]) -> Beside:
        """Make views of a split.

        Args:
            split: the rows.
            tokens: of each view.
        Returns:
            The views.
        """
        rows = np.arange(len(split.tokens))
        return cls(
            tuple(replace(split, tokens=one, labels=-1 - (rows + view * len(rows))) for view, one in enumerate(tokens))
        )

    def __len__(self) -> int:
        return len(self.views[0].tokens)

    @property
    def lengths(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """(rows,), tokens of a row in all its views. [tokens]"""
        return sum((view.tokens.lengths for view in self.views), np.zeros(len(self), np.int64))

    def places(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Read which rows of a batch are which.

        Args:
            labels: (R,), of a batch, int64.
        Returns:
            (views, n), where in the batch each view of the n rows stands; and (n,), their numbers, on the CPU.
        """
        beside = (labels < 0).nonzero()[:, 0]
        codes = -1 - labels[beside]
        order = codes.argsort(stable=True)
        count = len(beside) // len(self.views)
        return beside[order].view(len(self.views), count), codes[order][:count].cpu()


class MixedTrial(SchemeTrial):
    """A trial whose steps read rows without a label beside the labelled ones, in one pass.

    Numbers below the labelled split's length are its rows; those from there on are rows of `beside`.

    Args:
        beside: the other rows.
        **facts: arguments of `Trial`.
    """

    def __init__(self, beside: Beside, **facts: Any) -> None:
        super().__init__(**facts)
        self.beside = beside
        own = self.split.tokens.lengths
        self._lengths = np.concatenate([own, beside.lengths])

    @property
    def splits(self) -> list[Split]:
        """The labelled rows and the others."""
        return [self.split, *self.beside.views]

    @property
    def row_lengths(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """(numbers,), tokens per row, of all its views together."""
        return self._lengths

    def items(self, numbers: list[int]) -> int:
        """Every row counts as one."""
        return len(numbers)

    def other(self, number: int) -> int:
        """Return which of the other rows a number stands for.

        Args:
            number: of a step's row, at least the labelled split's length.
        """
        return number - len(self.split.tokens)

    def sent(self, numbers: list[int]) -> list[Sent]:
        """Send the labelled rows, and every view of the others."""
        labelled = len(self.split.tokens)
        own = [number for number in numbers if number < labelled]
        others = [self.other(number) for number in numbers if number >= labelled]
        parts = [Sent(self.split, own, self.draw, self.name)] if own else []
        return parts + ([Sent(view, others, self.draw, self.name) for view in self.beside.views] if others else [])


def risen(step: int, total: int, fraction: float) -> float:
    """Return how far a weight has risen, linearly from 0 to 1 over the first steps.

    Args:
        step: 0 for the first.
        total: steps of the run. [count]
        fraction: of them in which it rises. [fraction]
    Returns:
        A share.
    Example:
        >>> [risen(step, 10, 0.4) for step in (0, 2, 4, 9)]
        [0.0, 0.5, 1.0, 1.0]

    """
    rising = fraction * total
    return 1.0 if step >= rising else step / rising


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute -sum_c q_c log softmax(z)_c of each row.

    Args:
        logits: (R, C).
        targets: (R, C), every row summing to 1.
    Returns:
        (R,).
    """
    return -(targets * logits.log_softmax(-1)).sum(-1)


def counted(codes: np.ndarray[Any, Any], names: Sequence[str]) -> dict[str, int]:
    """Count rows per label.

    Args:
        codes: (rows,).
        names: by code.
    Returns:
        Name to count, labels without a row left out.
    """
    found, counts = np.unique(codes, return_counts=True)
    return {names[int(code)]: int(count) for code, count in zip(found, counts, strict=True)}


def right_share(codes: np.ndarray[Any, Any], truth: np.ndarray[Any, Any] | None) -> float | None:
    """Return how many pseudo-labels are right.

    Args:
        codes: (rows,), the pseudo-labels.
        truth: (rows,), None where it is not known.
    Returns:
        A share; None where it is not known or there is no row. [fraction]
    """
    return None if truth is None or not len(codes) else float((codes == truth).mean())


def to_tensor(values: np.ndarray[Any, Any], like: Tensor) -> Tensor:
    """Put numbers beside a tensor.

    Args:
        values: any.
        like: whose device and dtype are taken.
    Returns:
        The numbers.
    """
    return torch.from_numpy(values).to(like)
