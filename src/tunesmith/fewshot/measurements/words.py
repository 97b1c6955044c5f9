"""Measurements of texts by lists of words."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import numpy as np
from pydantic import field_validator

from tunesmith.core.arrays import Array
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.fewshot.measurements.base import Measurements


@register("measurements")
class Words(Measurements):
    """How often the words of each list stand in a text, letter case aside; `pay*` stands for all that begin so."""

    name: ClassVar[str] = "words"

    lists: dict[str, tuple[str, ...]] = setting(
        {}, "Words by the name of their list, for example {money: [fee, pay*]}."
    )

    @field_validator("lists")
    @classmethod
    def _filled(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        empty = [name for name, words in value.items() if not any(word.strip("* ") for word in words)]
        if not value or empty:
            raise ValueError(
                f"the list '{empty[0]}' holds no word" if empty else "at least one list of words is needed"
            )
        return value

    def names(self) -> list[str]:
        """Return the names of the lists."""
        return list(self.lists)

    def measure(self, inputs: Any) -> Array:
        """Count words.

        Args:
            inputs: texts.
        Returns:
            (rows, lists).
        """
        patterns = [re.compile("|".join(map(_pattern, words)), re.IGNORECASE) for words in self.lists.values()]
        return np.array([[len(one.findall(text)) for one in patterns] for text in inputs], np.float64)


def _pattern(word: str) -> str:
    stem = word.strip()
    end = r"\w*" if stem.endswith("*") else ""
    return rf"(?<!\w){re.escape(stem.rstrip('*'))}{end}(?!\w)"
