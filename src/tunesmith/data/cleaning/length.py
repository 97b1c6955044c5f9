"""Texts that are too short or too long."""

from __future__ import annotations

from typing import ClassVar

from pydantic import model_validator

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.data.cleaning.base import Filter, Rows, Verdict


@register("cleaning")
class Length(Filter):
    """Drop training rows whose text is too short or too long."""

    name: ClassVar[str] = "length"
    least: int = setting(1, "Fewest characters.", unit="characters", ge=0)
    most: int | None = setting(None, "Most characters; any number when empty.", unit="characters", ge=1)

    @model_validator(mode="after")
    def _leaves_something(self) -> Length:
        if self.most is not None and self.most < self.least:
            raise ValueError(f"most: {self.most} is less than least={self.least}, so no text could stay")
        return self

    def judge(self, rows: Rows) -> dict[int, Verdict]:
        """Count characters."""
        found = {}
        for row, text in enumerate(rows.texts):
            if len(text) < self.least:
                found[row] = Verdict(f"{len(text)} characters, fewer than {self.least}")
            elif self.most is not None and len(text) > self.most:
                found[row] = Verdict(f"{len(text)} characters, more than {self.most}")
        return found
