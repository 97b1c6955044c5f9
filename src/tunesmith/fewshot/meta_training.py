"""Meta-training: episode after episode, one optimizer update per few of them."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

from tunesmith.core.errors import TunesmithError
from tunesmith.core.progress import Bar
from tunesmith.fewshot.episodes import EpisodeSampler
from tunesmith.fewshot.learners.base import Learned, Learner
from tunesmith.fewshot.rows import Rows
from tunesmith.training.optimizing import Optimizer


@dataclass
class MetaTrained:
    """What meta-training did.

    Args:
        steps: optimizer updates. [count]
        losses: of each step. [nats]
        seconds: it took.
        interrupted: whether the user stopped it.
    """

    steps: int = 0
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False

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

    def run(self, learned: Learned, rows: Rows, steps: int, bar: Bar) -> MetaTrained:
        """Train; Ctrl-C ends it after the present step and keeps what was learned.

        Args:
            learned: delta and head.
            rows: that the sampler numbers.
            steps: optimizer updates. [count]
            bar: told of every step's episodes.
        Returns:
            What was done.
        Raises:
            TunesmithError: the loss is no longer a number.
        """
        found, began = MetaTrained(), time.perf_counter()
        try:
            for step in range(steps):
                episodes = self.sampler.draw(step * self.per_step, self.per_step)
                loss = self.learner.accumulate(learned, rows, episodes)
                if not math.isfinite(loss):
                    raise TunesmithError(
                        f"the loss of step {step + 1} is no longer a number: meta-training diverged. Lower "
                        "training.learning_rate, or the learner's inner_rate and head_rate where it has them."
                    )
                self.optimizer.step()
                self.optimizer.clear()
                found.steps += 1
                found.losses.append(loss)
                bar(self.per_step, f"loss {loss:.3f}")
        except KeyboardInterrupt:
            self.optimizer.clear()
            found.interrupted = True
        found.seconds = time.perf_counter() - began
        return found
