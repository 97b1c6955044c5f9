"""Texts in other languages."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import field_validator

from tunesmith.core.errors import unknown
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.data.cleaning.base import Filter, Rows, Verdict
from tunesmith.data.language import LANGUAGES, language_of


@register("cleaning")
class LanguageFilter(Filter):
    """Drop training rows in other languages, told by script and function words."""

    name: ClassVar[str] = "language"
    languages: tuple[str, ...] = setting(("en",), "Languages to keep, by their two-letter codes.", min_length=1)
    unsure: Literal["keep", "drop"] = setting("keep", "What to do with texts too short or mixed to tell.")

    @field_validator("languages")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for code in value:
            if code not in LANGUAGES:
                raise ValueError(unknown("language", code, LANGUAGES))
        return value

    def judge(self, rows: Rows) -> dict[int, Verdict]:
        """Tell each text's language."""
        found = {}
        for row, text in enumerate(rows.texts):
            language = language_of(text)
            if language is None and self.unsure == "drop":
                found[row] = Verdict("no language could be told")
            elif language is not None and language not in self.languages:
                found[row] = Verdict(f"it is {language}")
        return found
