"""What learners share that answer a new task after some steps on its support."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from tunesmith.core.settings import setting
from tunesmith.fewshot.adapting import Descent, answers_after
from tunesmith.fewshot.episodes import Episodes
from tunesmith.fewshot.learners.base import Adapts, Learned, Learner
from tunesmith.fewshot.rows import Rows


class Descending(Learner):
    """Base of learners whose delta takes steps of gradient descent in every task."""

    adapts: ClassVar[Adapts] = "delta"

    inner_steps: int = setting(3, "Steps within an episode in training.", unit="count", ge=1)
    answer_steps: int = setting(5, "Steps on the support of a new task.", unit="count", ge=1)
    inner_rate: float = setting(0.05, "Learning rate of the delta in these steps.", gt=0)
    head_rate: float = setting(2.0, "Learning rate of the head in these steps, per way.", gt=0)

    def logits(self, learned: Learned, rows: Rows, episodes: Episodes) -> Tensor:
        """Take steps on every support and answer; nothing is learned from it."""
        descent = Descent(self.answer_steps, self.inner_rate, self.head_rate)
        return answers_after(descent, learned.delta, rows, episodes).detach()
