"""The one training loop. It trains one delta, or many in one pass over the frozen base they share."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from tunesmith.core.errors import TunesmithError
from tunesmith.core.progress import Bar
from tunesmith.models.layout import RaggedBatch, ragged
from tunesmith.training.trial import Trial

Work = list[tuple[Trial, list[int]]]  # the rows of each trial in one step


class Loop:
    """Trains trials over one base, each with its own rows, optimizer, schedule, clipping, early stop and history.

    In a step all trials' rows go through the frozen base together; every row is routed to its trial's delta. Each
    trial ends where a run of its own would end: gradients never cross trials, and each draws its own dropout.

    Args:
        trials: at least one; all on the same backbone.
    """

    def __init__(self, trials: Sequence[Trial]) -> None:
        self.trials = sorted(trials, key=lambda trial: trial.name)
        self.backbone = self.trials[0].tuned.backbone
        self.interrupted = False

    def fit(self, bar: Bar) -> None:
        """Train until every trial's epochs are over or its patience ran out, or the user interrupts.

        Args:
            bar: told about every step.
        Raises:
            TunesmithError: the only trial's loss is no longer a number.
        """
        for trial in self.trials:
            trial.seed_dropout()
        try:
            self._run(bar)
        except KeyboardInterrupt:
            self.interrupted = True
            for trial in self.trials:
                trial.trained.interrupted = not trial.over
        for trial in self.trials:
            trial.finish()

    def _run(self, bar: Bar) -> None:
        """Step all trials that still train; one whose epoch ends is scored, and frees its rows when it is over."""
        rows: dict[str, Iterator[list[int]]] = {trial.name: trial.batches() for trial in self.trials}
        taken = dict.fromkeys(rows, 0)
        running = list(self.trials)
        while running:
            work: Work = []
            for trial in list(running):
                numbers = next(rows[trial.name], None)
                if numbers is None:
                    trial.close_epoch(taken[trial.name])
                    if trial.over:
                        running.remove(trial)
                        continue
                    rows[trial.name], taken[trial.name] = trial.batches(), 0
                    numbers = next(rows[trial.name])
                taken[trial.name] += 1
                work.append((trial, numbers))
            if work:
                self._timed(work, bar)
            running = [trial for trial in running if not trial.trained.diverged]

    def _timed(self, work: Work, bar: Bar) -> None:
        began = time.perf_counter()
        for trial, _ in work:
            trial.tuned.train(True)
        losses = self.step(work)
        for trial, _ in work:
            trial.trained.seconds += time.perf_counter() - began
        lowest, first = min(losses), work[0][0]
        shown = f"loss {lowest:.3f}" if len(self.trials) == 1 else f"{len(work)} trials, lowest loss {lowest:.3f}"
        bar(sum(len(numbers) for _, numbers in work), f"epoch {first.epoch} step {first.trained.steps} {shown}")

    def step(self, work: Work) -> list[float]:
        """Make one optimizer update of each trial.

        Args:
            work: the rows of each trial, trials in the order of their names.
        Returns:
            Each trial's loss, without its method's penalty.
        Raises:
            TunesmithError: the only trial's loss is no longer a number; among others, a trial that diverges stops.
        """
        losses = self.losses(work)
        values = [loss.item() for loss in losses]
        total: Tensor | None = None
        for (trial, _), loss, value in zip(work, losses, values, strict=True):
            if not math.isfinite(value):
                self._diverged(trial, value)
                continue
            penalty = trial.method.penalty(trial.tuned.delta)
            whole = loss if penalty is None else loss + penalty
            total = whole if total is None else total + whole
        if total is not None:
            total.backward()
        for (trial, numbers), value in zip(work, values, strict=True):
            if math.isfinite(value):
                trial.step(value, len(numbers))
        return values

    def losses(self, work: Work) -> list[Tensor]:
        """Send the rows of all trials through the base at once.

        Args:
            work: the rows of each trial, trials in the order of their names.
        Returns:
            One scalar per trial, with gradients.
        """
        batch = self._batch(work).to(self.backbone.device)
        seams, names = self.backbone.seams, batch.layout.names
        if names is None:
            seams.use(work[0][0].name)
        with nullcontext() if names is None else seams.route(names):
            task = work[0][0].tuned.task
            features = task.features(self.backbone, self.backbone.hidden(batch), batch.layout)
        found, row = [], 0
        for trial, numbers in work:
            part = slice(row, row + len(numbers))
            row += len(numbers)
            assert batch.labels is not None
            own = replace(batch, labels=batch.labels[part], index=batch.index[part])
            logits = trial.tuned.head(features[part])
            found.append(trial.tuned.task.loss(logits, own, trial.settings.label_smoothing))
        return found

    def _batch(self, work: Work) -> RaggedBatch:
        if len(work) == 1:
            trial, numbers = work[0]
            return trial.batch(numbers)
        rows, labels, names, index = [], [], [], []
        for trial, numbers in work:
            rows += [torch.from_numpy(trial.split.tokens[number]) for number in numbers]
            labels += [int(trial.split.labels[number]) for number in numbers]
            names += [trial.name] * len(numbers)
            index += numbers
        return ragged(rows, index, labels, names)

    def _diverged(self, trial: Trial, value: float) -> None:
        trial.trained.diverged = trial.trained.steps + 1
        if len(self.trials) == 1:
            raise TunesmithError(
                f"the loss is {value} at step {trial.trained.diverged}: training diverged. "
                f"Lower training.learning_rate (now {trial.settings.learning_rate:g}) or set training.clip_norm."
            )
