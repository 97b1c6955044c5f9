"""What translation and summarization share: two columns, one written from the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from pydantic import model_validator

from tunesmith.core.errors import RecipeError
from tunesmith.core.settings import setting
from tunesmith.data.conversations import check_columns, need
from tunesmith.data.formats.base import EmptyRow, Format, Turns
from tunesmith.tasks.generating import AnswerTask


class PairTask(AnswerTask):
    """Base of tasks that write one column from another."""

    formats: ClassVar[tuple[str, ...]] = ()

    source: str = setting("source", "Column to write from.")
    target: str = setting("target", "Column to write.")
    instruction: str = setting("", "Text before the source; empty for none.")

    @model_validator(mode="after")
    def _two_columns(self) -> Self:
        if self.source == self.target:
            raise ValueError(f"source and target are both '{self.source}': the task would learn to copy; name two")
        return self

    def form(self, columns: list[str], path: str) -> Format:
        """Take the two columns that the task names."""
        if self.columns:
            raise RecipeError("task.columns: this task names its columns by task.source and task.target; leave it out.")
        check_columns({"task.source": self.source, "task.target": self.target}, columns, path)
        return _Pair(self.source, self.target, self.instruction)


class _Pair(Format):
    """One column written from another."""

    name: ClassVar[str] = "pair"
    holds: ClassVar[str] = "the columns task.source and task.target"

    def __init__(self, source: str, target: str, instruction: str) -> None:
        self._source, self._target, self._instruction = source, target, instruction

    @classmethod
    def fits(cls, columns: Sequence[str]) -> bool:
        """Fit no file by itself: the task names the columns."""
        return False

    def read_columns(self) -> Sequence[str]:
        """Name the two columns."""
        return (self._source, self._target)

    def turns(self, row: Mapping[str, Any]) -> Turns:
        """Ask with the source, answer with the target."""
        source = need(row, self._source)
        if not source.strip():
            raise EmptyRow(f"column '{self._source}' is empty.")
        asked = "\n".join(part for part in (self._instruction, source) if part)
        return [("user", asked), ("assistant", need(row, self._target))], []
