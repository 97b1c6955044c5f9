"""Meta-training: episode after episode, one optimizer update per few of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from signal import SIGINT
from typing import Any

from tunesmith.core.errors import TunesmithError
from tunesmith.core.progress import Bar
from tunesmith.fewshot.episodes import EpisodeSampler
from tunesmith.fewshot.learners.base import Learned, Learner
from tunesmith.fewshot.rows import Rows
from tunesmith.training.checkpoints import Checkpoint, Checkpoints
from tunesmith.training.optimizing import Optimizer
from tunesmith.training.stopping import heeding


@dataclass
class MetaTrained:
    """What meta-training did.

    Args:
        steps: optimizer updates. [count]
        losses: of each step. [nats]
        seconds: it took.
        interrupted: whether it was stopped before the last step.
        to_end: whether the process itself was asked to end.
    """

    steps: int = 0
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False
    to_end: bool = False

    def history(self, every: int = 10) -> list[dict[str, Any]]:
        """Return the course of the loss.

        Args:
            every: so many steps are averaged. [count]
        Returns:
            {"step", "loss"} for each stretch.
        """
        parts = [self.losses[start : start + every] for start in range(0, len(self.losses), every)]
        return [
            {"step": min((n + 1) * every, self.steps), "loss": sum(part) / len(part)} for n, part in enumerate(parts)
        ]


@dataclass(frozen=True)
class MetaTraining:
    """How to meta-train.

    Args:
        learner: what answers.
        optimizer: over what is learned.
        sampler: of the training episodes.
        per_step: episodes per optimizer update. [count]
    """

    learner: Learner
    optimizer: Optimizer
    sampler: EpisodeSampler
    per_step: int

    def run(
        self,
        learned: Learned,
        rows: Rows,
        steps: int,
        bar: Bar,
        checkpoints: Checkpoints | None = None,
        before: Checkpoint | None = None,
        say: Callable[[str], None] = print,
    ) -> MetaTrained:
        """Train; Ctrl-C and SIGTERM end it after the present step.

        Args:
            learned: delta and head.
            rows: that the sampler numbers.
            steps: optimizer updates. [count]
            bar: told of every step's episodes.
            checkpoints: written between steps; None for none.
            before: to go on from; None to begin.
            say: told what the user should know meanwhile.
        Returns:
            What was done, before the checkpoint too.
        Raises:
            TunesmithError: the loss is no longer a number.
            CheckpointError: a checkpoint cannot be written, or does not fit.
        """
        found = MetaTrained() if before is None else self._resumed(learned, before)
        bar(found.steps * self.per_step)
        with heeding(say) as asked:
            try:
                while found.steps < steps and not asked.by:
                    self._step(learned, rows, found, bar)
                    ends = bool(asked.by) or found.steps == steps
                    if checkpoints is not None and (ends or checkpoints.due(found.steps, epoch_ended=True)):
                        checkpoints.save(found.steps, self._state(learned, found))
            except KeyboardInterrupt:  # in the midst of a step, which no checkpoint can hold
                if asked.by:
                    raise
                self.optimizer.clear()
                asked.by = SIGINT
        found.interrupted, found.to_end = bool(asked.by) and found.steps < steps, asked.to_end
        return found

    def _step(self, learned: Learned, rows: Rows, found: MetaTrained, bar: Bar) -> None:
        began = time.perf_counter()
        episodes = self.sampler.draw(found.steps * self.per_step, self.per_step)
        loss = self.learner.accumulate(learned, rows, episodes)
        if not math.isfinite(loss):
            raise TunesmithError(
                f"the loss of step {found.steps + 1} is no longer a number: meta-training diverged. Lower "
                "training.learning_rate, or the learner's inner_rate and head_rate where it has them."
            )
        self.optimizer.step()
        self.optimizer.clear()
        found.steps += 1
        found.losses.append(loss)
        found.seconds += time.perf_counter() - began
        bar(self.per_step, f"loss {loss:.3f}")

    def _state(self, learned: Learned, found: MetaTrained) -> dict[str, Any]:
        """Return everything that the next step depends on; episodes depend on their numbers alone."""
        return {
            "delta": dict(learned.delta.named_parameters()),
            "head": dict(learned.head.state_dict()),
            "optimizer": self.optimizer.state(),
            "steps": found.steps,
            "losses": found.losses,
            "seconds": found.seconds,
        }

    def _resumed(self, learned: Learned, before: Checkpoint) -> MetaTrained:
        state = before.state
        learned.delta.load(state["delta"], str(before.folder))
        learned.head.load_state_dict(state["head"])
        self.optimizer.resume(state["optimizer"])
        return MetaTrained(state["steps"], list(state["losses"]), state["seconds"])
