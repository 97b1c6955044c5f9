"""SQuAD: questions about paragraphs, with answers and where they stand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar

from tunesmith.core.errors import DataError
from tunesmith.core.registry import register
from tunesmith.data.readers.base import Row, beginning
from tunesmith.data.readers.json_lines import JsonLines


@register("readers")
class Squad(JsonLines):
    """A JSON file of articles with paragraphs with questions, as SQuAD, CMRC 2018 and XQuAD have it."""

    name: ClassVar[str] = "squad"
    suffixes: ClassVar[tuple[str, ...]] = ()
    by_content: ClassVar[bool] = True
    holds: ClassVar[str] = "questions about texts"
    text_column: ClassVar[str | None] = "question"

    @classmethod
    def reads(cls, path: str) -> bool:
        """Look for `data` and `paragraphs` at the beginning of a .json file."""
        begin = beginning(path, ".json")
        return all(re.search(rb'"%s"\s*:\s*\[' % key, begin) for key in (b"data", b"paragraphs"))

    def rows(self) -> Iterator[Row]:
        """Go through the questions; the file is held in memory.

        Returns:
            ("question 7", {id, title, context, question, answers}) for each; `answers` holds lists `text` and
            `answer_start`, empty for a question without an answer.
        Raises:
            DataError: not such a file; the question is named.
        """
        number = 0
        for article in self._list_of(self.whole(), "data", number):
            for paragraph in self._list_of(article, "paragraphs", number):
                for asked in self._list_of(paragraph, "qas", number):
                    number += 1
                    yield f"question {number}", self._question(number, asked, article, paragraph)

    def _list_of(self, value: Any, key: str, number: int) -> list[Any]:
        found = value.get(key) if isinstance(value, dict) else None
        if not isinstance(found, list):
            raise DataError(f"{self.path}, behind question {number}: a list '{key}' is needed there, as SQuAD has it.")
        return found

    def _question(self, number: int, asked: Any, article: Any, paragraph: Any) -> dict[str, Any]:
        try:
            answers = [(str(one["text"]), int(one["answer_start"])) for one in asked.get("answers", ())]
            for text in (paragraph["context"], asked["question"]):
                if not isinstance(text, str):
                    raise TypeError(f"{str(text)[:40]!r} is no text")
            return {
                "id": str(asked["id"]),
                "title": str(article.get("title", "")),
                "context": paragraph["context"],
                "question": asked["question"],
                "answers": {"text": [text for text, _ in answers], "answer_start": [start for _, start in answers]},
            }
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"{self.path}, question {number}: not as SQuAD has it ({type(error).__name__}: {error}). A question "
                "has id, question and answers of {text, answer_start}, its paragraph a context."
            ) from None
