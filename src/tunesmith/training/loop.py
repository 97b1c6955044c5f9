"""The one training loop. It trains one delta, or many in one pass over the frozen base they share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from signal import SIGINT
from typing import Any

from torch import Tensor

from tunesmith.core.errors import CheckpointError, RecipeError, TunesmithError
from tunesmith.core.memory import give_back
from tunesmith.core.progress import Bar
from tunesmith.core.seeds import derived, seed_everything
from tunesmith.models.dropout import drops_by_function
from tunesmith.models.products import narrow_named, narrow_products
from tunesmith.models.recomputing import recomputing
from tunesmith.training.ahead import Ahead, Unread
from tunesmith.training.checkpoints import Checkpoint, Checkpoints, Rows, newest
from tunesmith.training.monitoring import watching
from tunesmith.training.packing import random_state, set_random_state
from tunesmith.training.processes import ALONE, Processes
from tunesmith.training.regularizing import check_noise, noisy, whole_rows
from tunesmith.training.stopping import Asked, heeding
from tunesmith.training.synthesizing import check_inside, mixing
from tunesmith.training.trial import Trial

_SHOWN = 8  # rows of a diverged step that are named

Work = list[tuple[Trial, list[int]]]  # the rows of each trial in one step


class Loop:
    """Trains trials over one base, each with its own rows, optimizer, schedule, clipping, early stop and history.

    In a step all trials' rows go through the frozen base together; every row is routed to its trial's delta. Each
    trial ends where a run of its own would end: gradients never cross trials, and each draws its own dropout.

    Args:
        trials: at least one; all on the same backbone.
        processes: that train them together; their rows of a step are shared out among them.
    Raises:
        RecipeError: several trials on a model whose dropout is not drawn per trial, trials of different precision, a
            precision that this processor has no fast form for, or several processes for what one alone can train.
    """

    def __init__(self, trials: Sequence[Trial], processes: Processes = ALONE) -> None:
        self.trials = sorted(trials, key=lambda trial: trial.name)
        self.processes = processes
        self.backbone = self.trials[0].tuned.backbone
        self.steps = 0  # made so far, of all trials together
        self.interrupted = False
        self._checkpoints: Checkpoints | None = None
        self.ended = False  # whether the process was asked to end
        wanted = {trial.settings.precision for trial in trials}
        if len(wanted) > 1:
            raise RecipeError("training.precision: candidates share every pass, so all have the same precision.")
        if len(trials) > 1 and not self.backbone.proof.fast and drops_by_function(self.backbone.body):
            raise RecipeError(
                f"candidates: {type(self.backbone.model).__name__} draws what it drops for all rows together, so a "
                "candidate would not end where its own run ends. Set training.dropout=0, or train them one by one."
            )
        check_noise(self.backbone, self.trials)
        if processes.several:
            for trial in self.trials:
                trial.check_shared()
        check_inside(self.backbone, self.trials)
        self._narrow = narrow_named(wanted.pop(), self.backbone.device)
        self._next = Ahead(self.backbone.device)
        self._unread: list[Unread] = []  # losses of the step's passes
        self._tight = self._is_tight()

    def fit(self, bar: Bar, checkpoints: Checkpoints | None = None, say: Callable[[str], None] = print) -> None:
        """Train until every trial's epochs are over or its patience ran out, or the user interrupts.

        Ctrl-C and SIGTERM end it after the step they fall into.

        Args:
            bar: told about every step.
            checkpoints: written between steps, by the first process; None for none.
            say: told what the user should know meanwhile.
        Raises:
            TunesmithError: the only trial's loss is no longer a number.
            CheckpointError: a checkpoint cannot be written.
        """
        self._checkpoints = checkpoints if self.processes.first else None
        self.processes.start_alike([tensor for trial in self.trials for tensor in trial.tuned.tensors()])
        if not self.steps:
            for trial in self.trials:
                trial.seed_dropout()
        with heeding(say) as asked:
            try:
                self._run(bar, asked)
            except KeyboardInterrupt:  # in the midst of a step, which no checkpoint can hold
                if asked.by or self.processes.several:  # the others are in the midst of it too
                    raise
                asked.by = SIGINT
        self.interrupted, self.ended = bool(asked.by), asked.to_end
        unfinished = self.interrupted and not all(trial.over for trial in self.trials)
        for trial in self.trials:
            trial.trained.interrupted = unfinished
            trial.finish()

    def _run(self, bar: Bar, asked: Asked) -> None:
        """Step all trials that still train; one whose epoch ends is scored, and is left out once it is over."""
        running, stopping = [trial for trial in self.trials if not trial.over], False
        while running and not stopping:
            work: Work = [(trial, trial.take()) for trial in running]
            self._timed(work, bar)
            self.steps += 1
            ended = [trial for trial in running if trial.epoch_ended and not trial.trained.diverged]
            for trial in ended:
                trial.close_epoch()
                self._check_best(trial)
            running = [trial for trial in running if not trial.over]
            asked.by = self.processes.highest(asked.by)
            stopping = bool(asked.by)
            kept = self._checkpoints
            lost = all(trial.trained.diverged for trial in self.trials)  # nothing that one could go on from
            if kept is not None and not lost and (stopping or not running or kept.due(self.steps, bool(ended))):
                kept.save(self.steps, self.state(), self._rows())

    def _rows(self) -> Rows | None:
        below = self.backbone.below
        return None if below is None else Rows(below.store.filled, below.store.state)

    def state(self) -> dict[str, Any]:
        """Return everything that the next step depends on, for a checkpoint.

        Returns:
            A state for `resume`, between two steps.
        """
        return {
            "steps": self.steps,
            "trials": {trial.name: trial.state() for trial in self.trials},
            "again": self.backbone.again is not None,
            "random": random_state(),
        }

    def resume(self, checkpoint: Checkpoint, say: Callable[[str], None] = print) -> None:
        """Go on from a checkpoint of the same recipe, data and base model.

        Args:
            checkpoint: as read.
            say: told what is not as it was.
        Raises:
            CheckpointError: it does not fit these trials.
        """
        state, where = checkpoint.state, str(checkpoint.folder)
        if set(state["trials"]) != {trial.name for trial in self.trials}:
            raise CheckpointError(f"{where} holds other candidates than the recipe has.")
        for trial in self.trials:
            trial.resume(state["trials"][trial.name], where)
        self.backbone.again = recomputing(self.backbone.seams, self.backbone.body) if state["again"] else None
        self._tight = self._is_tight()
        if self.backbone.below is not None and checkpoint.rows:
            lost = self.backbone.below.store.resume(checkpoint.rows)
            if lost:
                say(f"note: training.cache: {lost} kept rows are gone; computed anew, they may differ by rounding.")
        set_random_state(state["random"])
        self.steps = state["steps"]

    def _is_tight(self) -> bool:
        """Whether memory was planned, so that what is free should be given back after every pass."""
        return self.backbone.again is not None or any(trial.most_tokens is not None for trial in self.trials)

    def _check_best(self, trial: Trial) -> None:
        """Give a trial that diverged before the first epoch's end the weights of its last checkpoint."""
        if not trial.trained.diverged or trial.trained.best_epoch or not self.processes.first:
            return
        written = self._checkpoints is not None and self._checkpoints.written is not None
        checkpoint = newest(self._checkpoints.folder.parent) if written and self._checkpoints else None
        if checkpoint is not None:
            _go_back(trial, checkpoint)
        elif len(self.trials) == 1:
            raise TunesmithError(trial.trained.reason)

    def _timed(self, work: Work, bar: Bar) -> None:
        began = time.perf_counter()
        for trial, _ in work:
            trial.tuned.train(True)
        with narrow_products(self._narrow), whole_rows(self.backbone, [trial for trial, _ in work]):
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
        own, whole = self._shared(work)
        passes = {trial: trial.passes(numbers) for trial, numbers in own}
        values: dict[Trial, float] = dict.fromkeys(whole, 0.0)
        with ExitStack() as prompts:
            for trial, numbers in own:
                trial.regularizing.enter()
                prompts.callback(trial.regularizing.leave)
                if len(passes[trial]) > 1:
                    self.backbone.seams.use(trial.name)
                    prompts.enter_context(self.backbone.ahead(trial.batch(numbers), trial.name))
            for turn in range(max(map(len, passes.values()))):
                part = [(trial, rows[turn]) for trial, rows in passes.items() if turn < len(rows)]
                self._pass(part, whole, values, turn == 0 and self.processes.first)
                if self._tight:
                    give_back()
        if self._runs_ahead(work):
            self._next.look_ahead(work[0][0])
            values = {trial: sum(one.value() for one in self._unread) for trial in values}
            self._unread.clear()
        self.processes.sum_gradients([one for trial in values for one in trial.optimizer.parameters])
        values = dict(zip(values, self.processes.sums(list(values.values())), strict=True))
        for trial, numbers in work:
            wrong = trial.step(values[trial], len(numbers))
            if wrong:
                self._diverged(trial, wrong, numbers)
        return list(values.values())

    def _shared(self, work: Work) -> tuple[Work, dict[Trial, float]]:
        """Return this process's rows of each trial, and what the whole step's rows teach; alone, that is all of them.

        A process that is left without rows of a trial sends one that counts nothing, so that all have the same
        gradients to send. What is dropped at random is drawn anew for every step and process.
        """
        whole: dict[Trial, float] = {trial: max(1, trial.items(numbers)) for trial, numbers in work}
        if not self.processes.several:
            return work, whole
        own, loads, where = list[tuple[Trial, list[int]]](), [0] * self.processes.count, self._where()
        for trial, numbers in work:
            trial.seed_dropout(where)
            mine = self.processes.share(trial.row_lengths[numbers].tolist(), loads)
            own.append((trial, [numbers[place] for place in mine] or numbers[:1]))
            if not mine:
                whole[trial] = math.inf
        return own, whole

    def _where(self) -> str:
        """Seed what every process draws for all trials together, and name the place of what each trial draws."""
        where = f" of {self.processes.words} in step {self.steps}"
        seed_everything(derived(self.trials[0].seed, where))
        return where

    def _pass(self, work: Work, whole: dict[Trial, float], values: dict[Trial, float], penalised: bool) -> None:
        """Send rows through the base once and add their gradients, and the penalties'; `values` gathers the losses."""
        total: Tensor | None = None
        for (trial, numbers), mean in zip(work, self.losses(work), strict=True):
            share = trial.items(numbers) / whole[trial]
            loss = mean if share == 1.0 else mean * share
            if self._runs_ahead(work):
                self._unread.append(Unread(loss))
            else:
                values[trial] += loss.item()
                if not math.isfinite(values[trial]):
                    continue
            penalty = trial.penalty() if penalised else None
            loss = trial.optimizer.scale(loss if penalty is None else loss + penalty)
            total = loss if total is None else total + loss
        if total is not None:
            total.backward()

    def _runs_ahead(self, work: Work) -> bool:
        """Whether losses are read once the GPU has been given all of the step; a bad one spoils no other trial's."""
        return self.backbone.device.type == "cuda" and len(work) == 1 and not self.processes.several

    def losses(self, work: Work) -> list[Tensor]:
        """Send the rows of all trials through the base at once.

        Args:
            work: the rows of each trial, trials in the order of their names.
        Returns:
            One scalar per trial, with gradients.
        """
        batch, owns, name = self._next.of([trial.sent(numbers) for trial, numbers in work])
        seams = self.backbone.seams
        if name is not None:
            seams.use(name)
        routed = seams.route(batch.layout.names or ()) if name is None else nullcontext()
        training = [trial for trial, _ in work]
        seen = watching(self.backbone, training)
        with routed, noisy(self.backbone, training), mixing(self.backbone, training), seen:
            outputs = work[0][0].tuned.task.read(self.backbone, batch)
        found, item = [], 0
        for (trial, _), own in zip(work, owns, strict=True):
            part = slice(item, item + sum(own.items))
            item = part.stop
            found.append(trial.loss(outputs[part], own))
        return found

    def _diverged(self, trial: Trial, wrong: str, numbers: list[int]) -> None:
        """Stop a trial; its best state stays, or its last checkpoint, and without one the only trial's is an error."""
        trained, split = trial.trained, trial.split
        trained.diverged = trained.steps + 1
        numbers = [number for number in numbers if number < len(split.index)]  # others have no place in this file
        places = [split.place(number) for number in numbers[:_SHOWN]]
        more = ", ..." if len(numbers) > _SHOWN else ""
        trained.reason = (
            f"{wrong} at step {trained.diverged}, which read {', '.join(places)}{more} of "
            f"{split.examples.path}: training diverged. Lower training.learning_rate (now "
            f"{trial.settings.learning_rate:g}), set training.clip_norm, or look at those rows."
        )
        self._check_best(trial)


def _go_back(trial: Trial, checkpoint: Checkpoint) -> None:
    """Take a trial's weights from a checkpoint, and nothing else."""
    state = checkpoint.state["trials"][trial.name]
    trial.tuned.delta.load(state["delta"], str(checkpoint.folder))
    trial.tuned.head.load_state_dict(state["head"])
    trial.trained.kept_step = checkpoint.step
