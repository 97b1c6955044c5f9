"""White space."""

from __future__ import annotations

import re
from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.data.cleaning.base import Change

_SPACES = re.compile(r"[^\S\n]+")
_ENDS = re.compile(r" ?\n ?")
_GAPS = re.compile(r"\n{3,}")


@register("cleaning")
class Whitespace(Change):
    """Write runs of white space as one space, and leave none at either end."""

    name: ClassVar[str] = "whitespace"
    lines: bool = setting(True, "Keep line breaks, at most one empty line in a row; false makes them spaces too.")

    def text(self, text: str) -> str:
        """Collapse."""
        if not self.lines:
            return " ".join(text.split())
        return _GAPS.sub("\n\n", _ENDS.sub("\n", _SPACES.sub(" ", text))).strip()
