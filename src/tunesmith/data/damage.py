"""Damage done by encodings: text that was decoded as something else than it was."""

from __future__ import annotations

import re

# How the first bytes of UTF-8 look as Windows-1252 or Latin-1, followed by what its further bytes look like.
_SUSPECT = re.compile(
    "[\u00c2-\u00f4][\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122]"
)
_TURNED = re.compile(
    "[\u00c2-\u00f4][\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122]{1,3}"
)


def damage_of(text: str) -> str | None:
    """Say how a text was damaged.

    Args:
        text: any.
    Returns:
        "replaced" where characters were lost (U+FFFD), "mojibake" where UTF-8 was read as Latin-1 or Windows-1252;
        None for sound text.
    Example:
        >>> damage_of("caf\\u00c3\\u00a9"), damage_of("caf\\u00e9"), damage_of("caf\\ufffd")
        ('mojibake', None, 'replaced')
    """
    if text.isascii():
        return None
    if "\ufffd" in text:
        return "replaced"
    if _SUSPECT.search(text) is None:
        return None
    return "mojibake" if any(_turns_back(match.group()) for match in _TURNED.finditer(text)) else None


def _turns_back(part: str) -> bool:
    for encoding in ("cp1252", "latin-1"):
        for size in range(len(part), 1, -1):
            try:
                part[:size].encode(encoding).decode("utf-8")
                return True
            except UnicodeError:
                continue
    return False
