"""One delta and its head in training: rows, optimizer, history, and the best state so far."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tunesmith.core.errors import RecipeError
from tunesmith.core.seeds import derived
from tunesmith.methods.base import Method
from tunesmith.models.delta import Delta
from tunesmith.models.layout import RaggedBatch
from tunesmith.recipe.schema import TrainingSettings
from tunesmith.tasks.loss import Classes
from tunesmith.tasks.rejecting import plain
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.batching import Sent, cut_by_length, joined, usual_pass
from tunesmith.training.corpus import Split
from tunesmith.training.guarding import objection
from tunesmith.training.monitoring import Monitor
from tunesmith.training.optimizing import NoOptimizer, Optimizer
from tunesmith.training.part_rates import delta_parts, undecayed
from tunesmith.training.ranking import Key, Ranked, Ranking, mean_state
from tunesmith.training.regularizing import Regularizing, zero_share
from tunesmith.training.sampling import epoch_steps, rows_of_epoch
from tunesmith.training.synthesizing import Synthesizing
from tunesmith.training.trained import Trained

# Scores after an epoch, by name; "validation loss" among them.
Validate = Callable[[], dict[str, float]]


class Trial:
    """One delta and one head, with everything that trains them.

    Args:
        tuned: the model in tuning.
        split: the training rows.
        settings: the recipe's.
        seed: of the trial.
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
        self.method, self.seed, self.stage_epochs = method, seed, settings.epochs  # of the present stage
        self._best_name, self._higher = best
        self._order = torch.Generator().manual_seed(derived(seed, "order"))
        deltas = [parameter for delta in self.deltas for parameter in delta.parameters()]
        self.regularizing = Regularizing(
            settings.regularizers, deltas, self.head_parameters(), derived(seed, "regularizers")
        )
        self.optimizer = self.new_optimizer() if method.trains else NoOptimizer()
        self.synthesizing = Synthesizing(settings.synthetic, split.labels, derived(seed, "synthetic"))
        self.trained = Trained()
        self.token_bytes = 0.0  # that a pass keeps per token, once that was measured
        self.most_tokens: int | None = None  # of a pass, where memory is planned
        self.epoch = 0
        self.stopped = False  # from outside: whoever compares trials has seen enough of this one
        self.stage = 0, 0  # the epoch and the step that the present stage of training began after
        self._steps: Sequence[list[int]] = []  # rows of each step of the present epoch
        self._taken = 0  # of them
        self._epoch_start = self._order.get_state()
        self.ranking = Ranking(settings.keep_best)
        self._mean_key: Key | None = None  # of the mean of the best states, where that answers
        self._facts: dict[str, float] = {}
        self.monitor = Monitor()  # of the epoch's last step

    @property
    def name(self) -> str:
        """The delta's name."""
        return self.tuned.delta.name

    @property
    def deltas(self) -> list[Delta]:
        """The deltas that train, the trial's own first."""
        return [self.tuned.delta]

    def new_optimizer(self) -> Optimizer:
        """Make the optimizer of the stage's epochs over the rows."""
        settings, head = self.settings, self.head_parameters()
        rate, others = settings.learning_rate, settings.part_learning_rates
        parts = [part for delta in self.deltas for part in delta_parts(self.method, delta, rate, others)]
        return Optimizer(
            [*parts, (head, settings.head_learning_rate or rate), *self.regularizing.parts],
            settings,
            total=min(self.epoch_steps * self.stage_epochs, settings.max_steps or sys.maxsize),
            scaled=next(self.tuned.backbone.model.parameters()).dtype == torch.float16,
            head=head,
            still=undecayed(self.method, self.deltas),
        )

    def head_parameters(self) -> list[nn.Parameter]:
        """Return what trains besides the deltas."""
        return list(self.tuned.head.parameters())

    @property
    def draw(self) -> int:
        """Of what an epoch draws at random in the rows themselves, such as which tokens are masked."""
        return derived(self.seed, f"rows of epoch {self.epoch}")

    def seed_dropout(self, where: str = "") -> None:
        """Start the trial's own streams of dropout masks, and of noise.

        Args:
            where: names other streams than the first ones, as those of a process and step.
        """
        source = self.tuned.backbone.seams.own_dropout(self.name)
        source.seed(derived(self.seed, f"dropout{where}"))
        self.tuned.seed_head(derived(self.seed, f"head dropout{where}"))
        if where:
            self.regularizing.seed_noise(derived(self.seed, f"noise{where}"))

    def check_shared(self) -> None:
        """Refuse to share the rows of a step out among processes where they cannot be told apart.

        Raises:
            RecipeError: a loss or the head compares all rows of a step, or they are mixed.
        """
        if self.synthesizing.how is not None:
            raise RecipeError(
                "several processes: training.synthetic mixes all rows of a step, which no process has. Train in one "
                "process, or leave it out."
            )
        if not self.tuned.task.separable:
            raise RecipeError(
                "several processes: the head or a loss of the task compares all rows of a step, which no process has. "
                "Train in one process, or choose a loss that is a mean over rows, for example cross-entropy."
            )

    # Rows -----------------------------------------------------------------------------------------------------

    @property
    def rows(self) -> int:
        """How many rows an epoch's order is drawn of. [count]"""
        return len(self.split.tokens)

    @property
    def row_labels(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """(rows,), their codes."""
        return self.split.labels

    @property
    def all_rows(self) -> int:
        """How many rows all epochs are expected to read. [count]"""
        rows, most = self.epoch_rows * self.stage_epochs, self.settings.max_steps
        return min(rows, most * self.settings.batch_size if most else rows) * self.tuned.task.copies

    @property
    def splits(self) -> list[Split]:
        """The splits that steps read."""
        return [self.split]

    @property
    def step_rows(self) -> int:
        """How many rows a step reads at most. [count]"""
        return self.settings.batch_size * self.tuned.task.copies

    @property
    def row_lengths(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """(numbers,), tokens that go through the base for each row's number. [tokens]"""
        return self.split.tokens.lengths

    def sent(self, numbers: list[int]) -> list[Sent]:
        """Say what goes through the base for rows of a step.

        Args:
            numbers: of the rows.
        Returns:
            Rows of one or several splits; where deltas differ, their names begin with the trial's.
        """
        return [Sent(self.split, numbers, self.draw, self.name)]

    def loss(self, outputs: Tensor, batch: RaggedBatch) -> Tensor:
        """Compute the loss of what was sent.

        Args:
            outputs: (items, D), from the task's `read`.
            batch: of the rows sent, with labels or learned tokens.
        Returns:
            A scalar that carries gradients: the mean over the rows' items.
        """
        outputs, batch = self.synthesizing.made(outputs, batch, self._classes, self.trained.steps)
        return self.tuned.loss_of(outputs, batch, self.settings.label_smoothing)

    @property
    def _classes(self) -> int:
        """How many classes the head knows. [count]"""
        known = getattr(plain(self.tuned.head), "known_classes", None)
        return len(known.counts) if isinstance(known, Classes) else int(self.split.labels.max()) + 1

    def take(self) -> list[int]:
        """Return the rows of the next step; a new epoch begins where one has ended.

        Returns:
            Numbers of rows.
        """
        if self.epoch_ended:
            self.epoch += 1
            self._taken = 0
            self._begin()
        self._taken += 1
        return self._steps[self._taken - 1] * self.tuned.task.copies

    @property
    def next_rows(self) -> list[int]:
        """The rows that `take` will give next in the same epoch; none where it has ended, or they may yet change."""
        if self.epoch_ended or type(self).sent is not Trial.sent:
            return []
        return self._steps[self._taken] * self.tuned.task.copies

    @property
    def epoch_rows(self) -> int:
        """Rows of an epoch, each once. [count]"""
        if self.settings.balance == "none":
            return self.rows
        return rows_of_epoch(self.row_labels, self.settings.balance)

    @property
    def epoch_steps(self) -> int:
        """Steps of an epoch. [count]"""
        return math.ceil(self.epoch_rows / self.settings.batch_size)

    @property
    def epoch_ended(self) -> bool:
        """Whether all rows of the present epoch were taken, or none has begun."""
        return self._taken == len(self._steps)

    def _begin(self) -> None:
        """Draw the order of an epoch."""
        self._epoch_start = self._order.get_state()
        steps = epoch_steps(self.rows, self.row_labels, self.settings, self._order)
        before, most = (self.epoch - 1 - self.stage[0]) * len(steps), self.settings.max_steps
        ended = most is not None and most <= before  # whoever takes more, as a range test, gets whole epochs
        self._steps = steps if most is None or ended else steps.first(most - before)

    def batch(self, numbers: list[int]) -> RaggedBatch:
        """Put rows of the split into a batch of their own.

        Args:
            numbers: which rows.
        Returns:
            The batch, with labels.
        """
        return joined([(one.split, one.numbers, one.draw) for one in self.sent(numbers)])

    # Steps ----------------------------------------------------------------------------------------------------

    @property
    def divisible(self) -> bool:
        """Whether the rows of a step may go through the model in parts: nothing compares or mixes them."""
        return self.tuned.task.separable and self.synthesizing.how is None

    @property
    def pass_tokens(self) -> int:
        """Most tokens that go through the model at once; 0 for any number."""
        if not self.divisible:
            return 0
        if self.most_tokens is not None:
            return self.most_tokens
        if self.settings.tokens_per_pass or self.tuned.backbone.device.type != "cpu":
            return self.settings.tokens_per_pass or 0
        return usual_pass(self.token_bytes)

    def passes(self, numbers: list[int]) -> list[list[int]]:
        """Cut the rows of a step into passes of at most `training.tokens_per_pass` tokens, like lengths together.

        Args:
            numbers: of the step's rows.
        Returns:
            The rows of each pass; at least one row each.
        """
        lengths, limit = self.row_lengths[numbers], self.pass_tokens
        if not limit or lengths.sum() <= limit:
            return [numbers]
        spared = self.tuned.backbone.spared(self.batch(numbers))
        return [[numbers[place] for place in part] for part in cut_by_length((lengths - spared).tolist(), limit)]

    def items(self, numbers: list[int]) -> int:
        """Count what rows teach: labels, or tokens.

        Args:
            numbers: of the rows.
        Returns:
            Their number. [count]
        """
        return sum(self.split.tokens.items(number) for number in numbers)

    def step(self, loss: float, rows: int) -> str:
        """Update from the gradients of a step, unless something is wrong with it.

        Args:
            loss: of the step, without the method's penalty.
            rows: it was computed on. [count]
        Returns:
            What is wrong; empty when the step was made.
        """
        wrong = objection(loss, self.trained.losses, self.settings.guard)
        losses = [row["validation loss"] for row in self.trained.history if "validation loss" in row]
        facts = {} if wrong else self.optimizer.step(losses)
        if wrong or not (self.optimizer.scaled or math.isfinite(facts["gradient_norm"])):
            self.optimizer.clear()
            return f"the loss {wrong}" if wrong else f"the norm of the gradients is {facts['gradient_norm']}"
        self._facts = facts
        if self.epoch_ended:
            self.monitor.gradients(self.tuned.delta.named_parameters())
        self.trained.steps += 1
        made, total = self.trained.steps - self.stage[1], self.optimizer.total  # both of the present stage
        self.regularizing.thin(made, total)
        self.regularizing.average(made, total)
        for delta in self.deltas:
            self.method.adjust(delta, made, total)
        self.optimizer.clear()
        self.trained.examples += rows
        self.trained.losses.append(loss)
        return ""

    def close_epoch(self) -> None:
        """Score the present state, or the average that answers in its place, and keep it if it is the best so far."""
        with self._answering():
            self._close_epoch()

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Put the averages of optimizer and regularizers in the places of what trains."""
        answers = self.answers()
        if answers is None:
            yield
            return
        trained = self.tuned.state()
        self.tuned.restore(answers)
        try:
            yield
        finally:
            self.tuned.restore(trained)

    def answers(self) -> list[Tensor] | None:
        """Return what the model should answer with in the place of what trains, where something averages.

        Returns:
            One tensor per parameter of the delta and the head; None where these answer themselves.
        """
        averaged = self.optimizer.answering()
        by_id = self.regularizing.answers()
        if averaged is not None:
            by_id.update(zip(map(id, self.optimizer.parameters), averaged, strict=True))
        return [by_id.get(id(one), one.detach()) for one in self.tuned.parameters()] if by_id else None

    def penalty(self) -> Tensor | None:
        """Return what method and regularizers add to the loss of a step, or None."""
        found = [*map(self.method.penalty, self.deltas), self.regularizing.penalty()]
        given = [one for one in found if one is not None]
        return torch.stack(given).sum() if len(given) > 1 else next(iter(given), None)

    def _close_epoch(self) -> None:
        self.tuned.train(False)
        losses = self.trained.losses[-len(self._steps) :]
        train_loss = sum(losses) / len(losses)
        if self.regularizing.sparsifies:
            self._facts["zero share"] = zero_share([*self.tuned.delta.parameters()] or self.tuned.parameters())
        facts = {**self._facts, **self.monitor.facts()}
        if self.epoch % self.settings.score_every and not self._used_up:
            self.trained.history.append({"epoch": self.epoch, "train loss": train_loss, **facts})
            return
        scores = self.validate()
        self.trained.history.append({"epoch": self.epoch, "train loss": train_loss, **scores, **facts})
        loss = scores.get("validation loss", train_loss)  # without validation rows the last epoch is kept
        if not math.isfinite(loss):
            self.trained.diverged = self.trained.steps
            self.trained.reason = (
                f"the validation loss is {loss} after epoch {self.epoch}: training diverged. Lower "
                f"training.learning_rate (now {self.settings.learning_rate:g}), or set training.clip_norm."
            )
            return
        if self.ranking.add((self._score(scores), loss), self.epoch, self.tuned.parameters()):
            self.trained.best_epoch = self.epoch

    def _score(self, scores: dict[str, float]) -> float:
        if self._best_name == "last":
            return -float(self.epoch)
        return scores[self._best_name] * (-1 if self._higher else 1)

    @property
    def over(self) -> bool:
        """Whether the last epoch has ended, patience ran out, it was stopped, or the loss is no number any more."""
        return self.trained.diverged > 0 or self.stopped or self.stage_over

    @property
    def stage_over(self) -> bool:
        """Whether the stage's last epoch has ended, or patience ran out."""
        patience, best = self.settings.patience, max(self.trained.best_epoch, self.stage[0])
        scored = self.epoch % self.settings.score_every == 0
        tired = patience is not None and scored and self.epoch - best >= patience
        return self.epoch_ended and (tired or self._used_up)

    @property
    def _used_up(self) -> bool:
        """Whether the present epoch is the stage's last one."""
        epochs, most = self.epoch - self.stage[0], self.settings.max_steps
        return epochs >= self.stage_epochs or (most is not None and epochs * self.epoch_steps >= most)

    @property
    def key(self) -> Key:
        """What trials are compared by, lower is better: the deciding score, then the validation loss."""
        best = self.ranking.best
        return (math.inf, math.inf) if best is None else best.key if self._mean_key is None else self._mean_key

    # Checkpoints ----------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return everything that the next step depends on.

        Returns:
            A state for `resume`, between two steps.
        """
        return {
            "delta": dict(self.tuned.delta.named_parameters()),
            "head": dict(self.tuned.head.state_dict()),
            "method": self.method.training_state(self.tuned.delta),
            "optimizer": self.optimizer.state(),
            "regularizing": self.regularizing.state(),
            "synthesizing": self.synthesizing.state(),
            "dropout": self.tuned.streams(),
            "epoch": self.epoch,
            "stage": self.stage,
            "taken": self._taken,
            "order": self._epoch_start,
            "trained": vars(self.trained),
            "ranking": self.ranking.state(),
            "facts": self._facts,
            "token bytes": self.token_bytes,
            "most tokens": self.most_tokens,
        }

    def resume(self, state: Mapping[str, Any], where: str) -> None:
        """Go on from a state.

        Args:
            state: from `state`, of a trial of the same recipe and data.
            where: what to call its source in an error.
        Raises:
            CheckpointError: it does not fit this trial.
        """
        self.tuned.delta.load(state["delta"], where)
        self.tuned.head.load_state_dict(state["head"])
        self.method.resume(self.tuned.delta, state["method"])
        self.optimizer.resume(state["optimizer"])
        self.regularizing.resume(state["regularizing"], where)
        self.synthesizing.resume(state["synthesizing"], self.tuned.backbone.device)
        self.tuned.set_streams(state["dropout"])
        self.epoch, self.stage, self._taken = state["epoch"], state["stage"], state["taken"]
        self._order.set_state(state["order"])
        if self.epoch:
            self._begin()
        self.trained = Trained(**state["trained"])
        self.ranking.resume(state["ranking"], self.tuned.backbone.device)
        self._facts = state["facts"]
        self.token_bytes, self.most_tokens = state["token bytes"], state["most tokens"]

    def finish(self) -> None:
        """Go back to the best state, or to the mean of the best ones where that is no worse on validation.

        Before the first epoch's end, go to the average where something averages.
        """
        best = self.ranking.best
        self._mean_key, self.trained.averaged = None, []  # those of an earlier stage, where there was one
        state = self.answers() if best is None else best.state
        if state is not None:
            self.tuned.restore(state)
        self.tuned.train(False)
        alike = [one for one in self.ranking.states if one.epoch > self.stage[0]]  # of one start
        if self.settings.average_best and best is not None and len(alike) > 1:
            self._try_mean(best, alike)

    def _try_mean(self, best: Ranked, states: list[Ranked]) -> None:
        self.tuned.restore(mean_state(states))
        scores = self.validate()
        key = self._score(scores), scores["validation loss"]
        if math.isfinite(key[1]) and key <= best.key:
            self._mean_key, self.trained.averaged = key, sorted(one.epoch for one in states)
        else:
            self.tuned.restore(best.state)
