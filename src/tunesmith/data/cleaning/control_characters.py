"""Characters that nobody sees."""

from __future__ import annotations

import re
from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.data.cleaning.base import Change

# C0 and C1 controls, soft hyphen, zero-width space and word joiner, direction marks, byte-order mark, non-characters.
# Joiners stay (U+200C, U+200D): Persian, Indic scripts and emoji are written with them.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064"
    "\u2066-\u2069\ufdd0-\ufdef\ufeff\ufff9-\ufffb\ufffe\uffff]"
)
_BREAKS = re.compile("\r\n|[\r\x85\u2028\u2029]")


@register("cleaning")
class ControlCharacters(Change):
    """Remove control characters, zero-width spaces and direction marks; every line end becomes a line feed."""

    name: ClassVar[str] = "control-characters"

    def text(self, text: str) -> str:
        """Remove them."""
        return _UNSEEN.sub("", _BREAKS.sub("\n", text))
