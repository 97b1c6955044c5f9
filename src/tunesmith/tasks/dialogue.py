"""Conversations of several turns."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.tasks.generating import AnswerTask


@register("tasks")
class Dialogue(AnswerTask):
    """Learn the assistant's turns of conversations, all of them or the last (task.learn)."""

    name: ClassVar[str] = "dialogue"
    formats: ClassVar[tuple[str, ...]] = ("messages", "sharegpt", "preference")
