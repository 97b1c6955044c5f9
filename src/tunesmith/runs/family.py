"""What differs between kinds of tasks when a recipe is carried out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from tunesmith.core.progress import Progress
from tunesmith.core.registry import find
from tunesmith.data.tokens import TokenRows
from tunesmith.evaluation.metrics.base import Metric
from tunesmith.evaluation.statistics import Result
from tunesmith.recipe.loading import Checked
from tunesmith.runs.comparing import Cost, Judge, Meter, Scored
from tunesmith.runs.continuing import Earlier
from tunesmith.runs.session import Reading, Session
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.corpus import Corpus, Split


@dataclass
class Family:
    """A kind of task, with the model and the data of one recipe.

    Args:
        session: the model.
        corpus: the data.
        judge: how all is scored.
    """

    session: Session
    corpus: Corpus
    judge: Judge

    @classmethod
    def read(cls, checked: Checked, session: Reading, known: Sequence[str] = ()) -> Corpus:
        """Read a recipe's data.

        Args:
            checked: the recipe.
            session: its model.
            known: labels that an earlier run knows.
        Returns:
            The splits.
        Raises:
            DataError: anything wrong with the data.
        """
        raise NotImplementedError

    @classmethod
    def read_file(cls, path: str, checked: Checked, session: Session, labels: Sequence[str] = ()) -> Split:
        """Read one file as a split, for scoring.

        Args:
            path: of the file.
            checked: the recipe whose columns it has.
            session: the model.
            labels: in the order of the codes.
        Returns:
            The split.
        Raises:
            DataError: the file cannot be used.
        """
        raise NotImplementedError

    @classmethod
    def encode(cls, session: Reading, rows: Iterable[Mapping[str, str]]) -> tuple[TokenRows, list[str]]:
        """Turn rows to be answered into tokens.

        Args:
            session: the model.
            rows: a value for every column that is read.
        Returns:
            The tokens, and sentences about what was cut.
        Raises:
            DataError: a text without any token.
        """
        raise NotImplementedError

    @classmethod
    def remind(cls, session: Session, checked: Checked, labels: Sequence[str], folder: Path) -> None:
        """Tell a finished run's task what it knew when it trained.

        Args:
            session: its model.
            checked: its recipe.
            labels: of it.
            folder: of the run.
        """

    def look(self, names: Sequence[str], meter: Meter, progress: Progress) -> None:
        """Do what is done once with the untuned model, before baselines and training.

        Args:
            names: of the baselines.
            meter: of cost.
            progress: for the user.
        """

    def baselines(self, names: Sequence[str], meter: Meter, progress: Progress, seed: int) -> list[Scored]:
        """Carry out baselines.

        Args:
            names: which.
            meter: of cost.
            progress: for the user.
            seed: of the run.
        Returns:
            In the order of the names.
        """
        raise NotImplementedError

    def training_rows(self, checked: Checked) -> Split:
        """Return the rows as they train: the training split, where a kind of task adds nothing to it.

        Args:
            checked: the candidate.
        Returns:
            The split; rows that were added stand behind its own.
        """
        return self.corpus.splits["train"]

    def on(self, train: Split, rows: np.ndarray[Any, np.dtype[np.int64]]) -> Family:
        """Return the same with other training rows, everything else shared.

        Args:
            train: the rows.
            rows: their numbers among the present ones.
        Returns:
            A family of its own.
        """
        return replace(self, corpus=replace(self.corpus, splits={**self.corpus.splits, "train": train}))

    def start(self, head: nn.Module, checked: Checked, earlier: Earlier | None) -> None:
        """Give a head its starting values.

        Args:
            head: of the task.
            checked: the candidate.
            earlier: run to go on from, or None.
        """

    def best(self, wanted: str) -> tuple[str, bool]:
        """Return the score that decides which epoch is kept, and whether higher is better.

        Args:
            wanted: training.best.
        Returns:
            Name and direction.
        """
        name = self.judge.metrics[0].name if wanted == "auto" else wanted
        if name in ("last", "validation loss"):
            return name, False
        return name, find("metrics", name).higher_is_better

    def validate(self, tuned: Tuned) -> dict[str, float]:
        """Score the present state on validation.

        Args:
            tuned: in training.
        Returns:
            "validation loss" and the metrics, by name.
        """
        raise NotImplementedError

    def settle(self, tuned: Tuned) -> None:
        """Bring what a head keeps of the training rows up to date, after an epoch and with the kept state.

        Args:
            tuned: in any state.
        """

    def answer(self, tuned: Tuned, split: Split) -> Result:
        """Let the tuned model answer a split.

        Args:
            tuned: with the kept state.
            split: the rows.
        Returns:
            What it did.
        """
        raise NotImplementedError

    def recall(self, tuned: Tuned, split: Split) -> Result:
        """Let the tuned model answer rows of an earlier run; nothing is generated.

        Args:
            tuned: in any state.
            split: the rows.
        Returns:
            What it did.
        """
        return self.answer(tuned, split)

    def first_recall(self, earlier: Earlier, tuned: Tuned, split: Split) -> Result:
        """Let an earlier run answer its own rows.

        Args:
            earlier: the run.
            tuned: with its delta, before the first step.
            split: the rows.
        Returns:
            What it did, over the new run's labels.
        """
        return self.recall(tuned, split)

    def recall_metrics(self) -> list[Metric]:
        """Return what forgetting is measured by.

        Returns:
            Metrics of what `recall` returns; the first one decides.
        """
        return list(self.judge.metrics)

    def learned(self, cost: Cost) -> Cost:
        """Add to the cost of training what was needed before it.

        Args:
            cost: of training.
        Returns:
            Of learning.
        """
        return cost

    def samples(self, tuned: Tuned) -> list[dict[str, str]]:
        """Let the tuned model write what `look` let the untuned one write.

        Args:
            tuned: with the kept state.
        Returns:
            "asked", "right", "before" and "after" of each; none for tasks with labels.
        """
        return []

    def told(self) -> list[str]:
        """Say what was read.

        Returns:
            One sentence per split.
        """
        raise NotImplementedError

    def on_base(self, progress: Progress) -> dict[str, Any]:
        """Compare a quantised base with full precision.

        Args:
            progress: for the user.
        Returns:
            Plain values; empty when nothing is quantised.
        """
        return {}
