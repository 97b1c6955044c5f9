"""The one training loop, made of small verbs: fit, epoch, step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.core.errors import TunesmithError
from tunesmith.core.progress import Bar
from tunesmith.core.seeds import derived
from tunesmith.methods.base import Method
from tunesmith.models.delta import Delta
from tunesmith.models.layout import RaggedBatch, ragged
from tunesmith.recipe.schema import TrainingSettings
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.corpus import Split
from tunesmith.training.optimizing import Optimizer

# Scores after an epoch, by name; "validation loss" among them.
Validate = Callable[[], dict[str, float]]


@dataclass
class Trained:
    """What training left behind; the best state is in the model.

    Args:
        history: one row per epoch.
        losses: training loss per step.
        best_epoch: whose state was kept, from 1; 0 when training stopped before the first epoch's end.
        steps: optimizer updates.
        examples: rows trained on.
        seconds: spent in training steps, validation left out.
        interrupted: whether the user stopped it.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    best_epoch: int = 0
    steps: int = 0
    examples: int = 0
    seconds: float = 0.0
    interrupted: bool = False


class Loop:
    """Trains one delta and one head.

    Args:
        tuned: the model in tuning.
        split: the training rows.
        settings: the recipe's.
        seed: of the run.
        validate: scores of the present state.
        best: the score that decides, and whether higher is better.
        method: that attached the delta; it may set rates, add to the loss and change the delta between steps.
    """

    def __init__(
        self,
        tuned: Tuned,
        split: Split,
        settings: TrainingSettings,
        seed: int,
        validate: Validate,
        best: tuple[str, bool],
        method: Method,
    ) -> None:
        self.tuned, self.split, self.settings, self.validate = tuned, split, settings, validate
        self.method = method
        self._best_name, self._higher = best
        self._order = torch.Generator().manual_seed(derived(seed, "order"))
        head_rate = settings.head_learning_rate or settings.learning_rate
        self.optimizer = Optimizer(
            [*delta_parts(method, tuned.delta, settings.learning_rate), (list(tuned.head.parameters()), head_rate)],
            weight_decay=settings.weight_decay,
            total=math.ceil(len(split.tokens) / settings.batch_size) * settings.epochs,
            warmup_fraction=settings.warmup_fraction,
            schedule=settings.schedule,
            clip_norm=settings.clip_norm,
        )
        self.trained = Trained()
        self._kept: list[Tensor] | None = None
        self._kept_key: tuple[float, float] | None = None

    def fit(self, bar: Bar) -> Trained:
        """Train until the epochs are over, patience runs out or the user interrupts.

        Args:
            bar: told about every step.
        Returns:
            The history; the model and the head hold the best state.
        Raises:
            TunesmithError: the loss is no longer a number.
        """
        try:
            for epoch in range(1, self.settings.epochs + 1):
                self._epoch(epoch, bar)
                if self._out_of_patience(epoch):
                    break
        except KeyboardInterrupt:
            self.trained.interrupted = True
        if self._kept is not None:
            self.tuned.restore(self._kept)
        self.tuned.train(False)
        return self.trained

    def _epoch(self, epoch: int, bar: Bar) -> None:
        self.tuned.train(True)
        began, first = time.perf_counter(), len(self.trained.losses)
        facts: dict[str, float] = {}
        try:
            for batch in self._batches():
                loss, facts = self.step(batch)
                bar(batch.layout.rows, f"epoch {epoch} step {self.trained.steps} loss {loss:.3f}")
        finally:
            self.trained.seconds += time.perf_counter() - began
        self.tuned.train(False)
        losses, scores = self.trained.losses[first:], self.validate()
        self.trained.history.append({"epoch": epoch, "train loss": sum(losses) / len(losses), **scores, **facts})
        self._keep_if_better(epoch, scores)

    def step(self, batch: RaggedBatch) -> tuple[float, dict[str, float]]:
        """Make one optimizer update.

        Args:
            batch: with labels.
        Returns:
            The loss without the method's penalty, and learning_rate and gradient_norm.
        Raises:
            TunesmithError: the loss is no longer a number.
        """
        loss = self.tuned.loss(batch, self.settings.label_smoothing)
        value = loss.item()
        if not math.isfinite(value):
            raise TunesmithError(
                f"the loss is {value} at step {self.trained.steps + 1}: training diverged. "
                f"Lower training.learning_rate (now {self.settings.learning_rate:g}) or set training.clip_norm."
            )
        penalty = self.method.penalty(self.tuned.delta)
        (loss if penalty is None else loss + penalty).backward()
        facts = self.optimizer.step()
        self.trained.steps += 1
        self.method.adjust(self.tuned.delta, self.trained.steps, self.optimizer.total)
        self.optimizer.clear()
        self.trained.examples += batch.layout.rows
        self.trained.losses.append(value)
        return value, facts

    def batch(self, numbers: list[int]) -> RaggedBatch:
        """Put rows of the split into a batch.

        Args:
            numbers: which rows.
        Returns:
            The batch, with labels.
        """
        return batch_of(self.split, numbers)

    def _batches(self) -> Iterator[RaggedBatch]:
        order = torch.randperm(len(self.split.tokens), generator=self._order).tolist()
        size = self.settings.batch_size
        for start in range(0, len(order), size):
            yield self.batch(order[start : start + size])

    def _keep_if_better(self, epoch: int, scores: dict[str, float]) -> None:
        loss = scores["validation loss"]
        score = -float(epoch) if self._best_name == "last" else scores[self._best_name] * (-1 if self._higher else 1)
        key = (score, loss)  # lower is better; equal scores are decided by the loss
        if self._kept_key is None or key < self._kept_key:
            self._kept_key = key
            self._kept = self.tuned.state()
            self.trained.best_epoch = epoch

    def _out_of_patience(self, epoch: int) -> bool:
        patience = self.settings.patience
        return patience is not None and epoch - self.trained.best_epoch >= patience


def batch_of(split: Split, numbers: list[int]) -> RaggedBatch:
    """Put rows of a split into a batch.

    Args:
        split: any.
        numbers: which of its rows.
    Returns:
        The batch, with labels.
    """
    rows = [torch.from_numpy(split.tokens[number]) for number in numbers]
    return ragged(rows, numbers, [int(split.labels[number]) for number in numbers])


def delta_parts(method: Method, delta: Delta, rate: float) -> list[tuple[list[nn.Parameter], float]]:
    """Part a delta's parameters by their learning rate.

    Args:
        method: that attached it.
        delta: in training.
        rate: learning rate of the run.
    Returns:
        Parameters and rate of each part; first those of the run's own rate, possibly none.
    """
    parts: dict[float, list[nn.Parameter]] = {1.0: []}
    for name, parameter in delta.named_parameters():
        parts.setdefault(method.rate_ratio(name), []).append(parameter)
    return [(parameters, rate * ratio) for ratio, parameters in parts.items()]
