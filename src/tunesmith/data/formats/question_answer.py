"""Questions with answers, perhaps about a context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tunesmith.core.errors import DataError
from tunesmith.core.registry import register
from tunesmith.data.formats.base import EmptyRow, Format, Turns, written


@register("formats")
class QuestionAnswer(Format):
    """A question, an answer or several right ones, and a context where there is one."""

    name: ClassVar[str] = "question-answer"
    holds: ClassVar[str] = "columns question and answer (or answers), perhaps context"
    columns: ClassVar[tuple[str, ...]] = ("question", "answer", "answers", "context")

    @classmethod
    def fits(cls, columns: Sequence[str]) -> bool:
        """Look for both columns."""
        return "question" in columns and ("answer" in columns or "answers" in columns)

    def turns(self, row: Mapping[str, Any]) -> Turns:
        """Put the question below the context; the first answer is learned, all are right."""
        given = row["answer"] if "answer" in row else row["answers"]
        if not isinstance(given, Sequence | Mapping) and not written(given):
            raise EmptyRow("there is no answer.")
        answers = [written(given)] if isinstance(given, str | int | float) else _texts(given)
        if not answers:
            raise EmptyRow("the list of answers is empty.")
        context = written(row.get("context")).strip()
        question = written(row["question"]).strip()
        if not question:
            raise EmptyRow("the question is empty.")
        asked = f"{context}\n\nQuestion: {question}" if context else question
        return [("user", asked), ("assistant", answers[0])], answers[1:]


def _texts(value: Any) -> list[str]:
    """Read answers as a list of texts, or as SQuAD has them."""
    if isinstance(value, Mapping):
        value = value.get("text", [])
    if not isinstance(value, Sequence):
        raise DataError(f"an answer is a text or a list of texts, not {value!r}.")
    texts = [item.get("text") if isinstance(item, Mapping) else item for item in value]
    found = [text for text in texts if isinstance(text, str)]
    if len(found) < len(texts):
        raise DataError(f"an answer is a text or a list of texts, not {str(value)[:60]!r}.")
    return list(dict.fromkeys(found))
