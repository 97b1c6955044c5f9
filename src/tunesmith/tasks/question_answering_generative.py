"""Questions answered in words, perhaps about a context."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.tasks.generating import AnswerTask


@register("tasks")
class GenerativeQuestionAnswering(AnswerTask):
    """Learn to answer questions in words; where several answers are right, the first is learned and all are scored."""

    name: ClassVar[str] = "question-answering-generative"
    formats: ClassVar[tuple[str, ...]] = ("question-answer",)
    metrics: ClassVar[tuple[str, ...]] = ("exact-match", "token-f1", "perplexity")
