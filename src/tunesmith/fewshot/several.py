"""Trials that send every row in several views, to one delta or to several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunesmith.core.seeds import derived
from tunesmith.fewshot.schemes import SchemeTrial
from tunesmith.models.layout import RaggedBatch
from tunesmith.training.batching import Sent
from tunesmith.training.corpus import Split, Unlabelled


@dataclass(frozen=True)
class View:
    """How all rows are sent once.

    Args:
        labelled: the labelled rows, their labels below 0: they say which row and view they are.
        others: the unlabelled rows, likewise; None without.
        name: of the delta that they go to.
    """

    labelled: Split
    others: Split | None
    name: str


class SeveralTrial(SchemeTrial):
    """A trial that sends every row of a step in each of its views, in one pass.

    Args:
        made: per view, what makes its tokens of whole ones, and the name of its delta.
        unlabelled: further rows, or None.
        ratio: unlabelled rows per labelled row of a step. [count]
        facts: arguments of `Trial`.
    """

    def __init__(
        self, made: Sequence[tuple[Any, str]], unlabelled: Unlabelled | None, ratio: int, facts: dict[str, Any]
    ) -> None:
        super().__init__(**facts)
        self.ratio = 0 if unlabelled is None else ratio
        self.others = None if unlabelled is None else unlabelled.split
        self.total = len(self.split.tokens) + (0 if self.others is None else len(self.others.tokens))
        self.views = [self._view(number, make, name) for number, (make, name) in enumerate(made)]
        self.epochs: list[dict[str, float]] = []
        self._noted: list[tuple[int, int, float]] = []  # of a pass: rows, rows of one answer, summed divergence

    def _view(self, number: int, make: Any, name: str) -> View:
        def coded(split: Split, first: int) -> Split:
            rows = np.arange(first, first + len(split.tokens)) + number * self.total
            return replace(split, tokens=make(split.tokens), labels=-1 - rows)

        others = None if self.others is None else coded(self.others, len(self.split.tokens))
        return View(coded(self.split, 0), others, name)

    @property
    def splits(self) -> list[Split]:
        """All rows in all views."""
        return [split for view in self.views for split in (view.labelled, view.others) if split is not None]

    @property
    def row_lengths(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """(numbers,), tokens per row, of all its views together."""
        own = [self.split, *([] if self.others is None else [self.others])]
        return np.concatenate([split.tokens.lengths for split in own]) * len(self.views)

    @property
    def step_rows(self) -> int:
        """Labelled rows and their companions."""
        return self.settings.batch_size * (1 + self.ratio)

    @property
    def all_rows(self) -> int:
        """Of all epochs."""
        return super().all_rows * (1 + self.ratio)

    def items(self, numbers: list[int]) -> int:
        """Every row counts as one, in all its views."""
        return len(numbers)

    def _begin(self) -> None:
        super()._begin()
        if self.others is not None:
            labelled = len(self.split.tokens)
            self._steps = with_companions(self._steps, labelled, len(self.others.tokens), self.ratio, self._turns())

    def _turns(self) -> tuple[int, int]:
        return self.seed, (self.epoch - 1) * len(self.split.tokens) * self.ratio

    def sent(self, numbers: list[int]) -> list[Sent]:
        """Send every row in every view."""
        labelled = len(self.split.tokens)
        own = [number for number in numbers if number < labelled]
        rest = [number - labelled for number in numbers if number >= labelled]
        parts = []
        for view in self.views:
            for split, rows in ((view.labelled, own), (view.others, rest)):
                if split is not None and rows:
                    parts.append(Sent(split, rows, self.draw, view.name))
        return parts

    def places(self, batch: RaggedBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Read which rows of a batch are which.

        Args:
            batch: as sent.
        Returns:
            (views, R), where each view of the R rows stands; (R,), bool, which of them are labelled; and (R,), their
            codes, any number where they are not.
        """
        assert batch.labels is not None
        codes = -1 - batch.labels
        rows = len(codes) // len(self.views)
        places = codes.argsort(stable=True).view(len(self.views), rows)
        numbers = codes[places[0]]
        known = numbers < len(self.split.tokens)
        labels = torch.from_numpy(self.split.labels).to(numbers.device)[numbers.clamp_max(len(self.split.tokens) - 1)]
        return places, known, labels

    def together(self, taught: Tensor, apart: Tensor, known: Tensor, weight: float) -> Tensor:
        """Put a pass's losses together so that passes add up to the step's.

        loss = mean over labelled rows of l + weight * mean over all rows of d

        Args:
            taught: scalar, mean of l over the pass's labelled rows; 0 without any.
            apart: (R,), d of every row.
            known: (R,), bool, which rows are labelled.
            weight: of d.
        Returns:
            A scalar.
        """
        rows = len(known)
        return (int(known.sum()) * (1 + self.ratio) * taught + weight * apart.sum()) / rows

    def note(self, first: Tensor, second: Tensor, apart: Tensor) -> None:
        """Note how far two answers to the same rows agree.

        Args:
            first: (R, C), logits.
            second: (R, C), logits.
            apart: (R,), their divergence.
        """
        same = int((first.argmax(-1) == second.argmax(-1)).sum())
        self._noted.append((len(first), same, float(apart.detach().sum())))

    def close_epoch(self) -> None:
        """Score the state, and sum up how far both sides agree."""
        super().close_epoch()
        rows, same, apart = (sum(column) for column in zip(*self._noted, strict=True))
        self._noted = []
        self.epochs.append({"agreement": same / rows, "divergence": apart / rows})

    def state(self) -> dict[str, Any]:
        """Keep what the report will say."""
        return {**super().state(), "scheme": {"epochs": self.epochs, "noted": self._noted}}

    def resume(self, state: Mapping[str, Any], where: str) -> None:
        """Go on from a state."""
        super().resume(state, where)
        self.epochs, self._noted = state["scheme"]["epochs"], state["scheme"]["noted"]

    def findings(self, names: Sequence[str]) -> dict[str, Any]:
        """Return how far both sides agree on the rows they learn from, epoch by epoch."""
        return {"epochs": [{"epoch": number, **found} for number, found in enumerate(self.epochs, 1)]}


def with_companions(
    steps: Sequence[list[int]], labelled: int, others: int, ratio: int, turns: tuple[int, int]
) -> list[list[int]]:
    """Put unlabelled rows into every step; all come up before one comes again.

    Args:
        steps: numbers of labelled rows.
        labelled: how many of them there are; numbers of the others begin here. [count]
        others: how many unlabelled rows there are. [count]
        ratio: of them per labelled row. [count]
        turns: seed of their order, and how many were taken before.
    Returns:
        The steps with further numbers.
    """
    seed, before = turns

    def following() -> Iterator[int]:
        turn, taken = divmod(before, others)
        while True:
            draw = torch.Generator().manual_seed(derived(seed, f"unlabelled rows, turn {turn}"))
            yield from torch.randperm(others, generator=draw).tolist()[taken:]
            turn, taken = turn + 1, 0

    rows = following()
    return [[*numbers, *(labelled + next(rows) for _ in range(ratio * len(numbers)))] for numbers in steps]


def divergence(first: Tensor, second: Tensor) -> Tensor:
    """Compute KL(p || q) = sum_c p_c (log p_c - log q_c) of each row.

    Args:
        first: (R, C), logits of p.
        second: (R, C), logits of q.
    Returns:
        (R,).
    """
    log_first = first.log_softmax(-1)
    return (log_first.exp() * (log_first - second.log_softmax(-1))).sum(-1)


def symmetric(first: Tensor, second: Tensor) -> Tensor:
    """Compute (KL(p || q) + KL(q || p)) / 2 of each row.

    Args:
        first: (R, C), logits of p.
        second: (R, C), logits of q.
    Returns:
        (R,).
    """
    return (divergence(first, second) + divergence(second, first)) / 2
