"""Instructions and their answers."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.tasks.generating import AnswerTask


@register("tasks")
class InstructionTuning(AnswerTask):
    """Learn to answer instructions; of preference pairs the chosen answer is learned."""

    name: ClassVar[str] = "instruction-tuning"
    formats: ClassVar[tuple[str, ...]] = (
        "messages", "sharegpt", "alpaca", "prompt-completion", "question-answer", "preference",
    )  # fmt: skip
