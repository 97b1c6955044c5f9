"""HTML."""

from __future__ import annotations

import html
import re
from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.data.cleaning.base import Change

# Elements that begin a line of their own, and those that stand inside a line; any other word in angle brackets, as
# <MAIL_1> or <unk>, is text.
_BLOCKS = (
    "address|article|aside|blockquote|body|br|caption|center|dd|div|dl|dt|fieldset|figcaption|figure|footer|form|"
    "h[1-6]|head|header|hr|html|legend|li|main|nav|ol|optgroup|option|p|pre|section|select|table|tbody|td|tfoot|th|"
    "thead|title|tr|ul"
)
_INLINE = (
    "a|abbr|acronym|audio|b|base|bdi|bdo|big|button|canvas|cite|code|col|colgroup|data|del|details|dfn|dialog|em|"
    "embed|font|i|iframe|img|input|ins|kbd|label|link|map|mark|meta|meter|nobr|noscript|object|output|param|picture|"
    "progress|q|rp|rt|ruby|s|samp|small|source|span|strike|strong|sub|summary|sup|svg|textarea|time|tt|u|var|video|wbr"
)
_REST = r"(?:\s[^<>]{0,4000})?/?>"
_OPENED = re.compile(r"<(script|style)\b[^<>]*>|<(!--)|<!doctype[^<>]*>", re.IGNORECASE)
_CLOSED = {
    "script": re.compile(r"</script\s*>", re.IGNORECASE),
    "style": re.compile(r"</style\s*>", re.IGNORECASE),
    "!--": re.compile("-->"),
}
_BLOCK = re.compile(rf"</?(?:{_BLOCKS}){_REST}", re.IGNORECASE)
_WORD = re.compile(rf"</?(?:{_INLINE}){_REST}", re.IGNORECASE)


@register("cleaning")
class Html(Change):
    """Remove HTML tags, scripts, styles and comments, and write entities as the characters they stand for."""

    name: ClassVar[str] = "html"

    def text(self, text: str) -> str:
        """Remove tags, then read entities: an escaped tag is text."""
        if "<" in text:
            text = _WORD.sub("", _BLOCK.sub("\n", _read(text))).strip("\n")
        return html.unescape(text) if "&" in text else text


def _read(text: str) -> str:
    """Leave out scripts, styles, comments and the doctype; what is not closed is text, and is looked for once."""
    parts, end, unclosed = list[str](), 0, set[str]()
    for opened in _OPENED.finditer(text):
        kind = (opened.group(1) or opened.group(2) or "").lower()
        if opened.start() < end or kind in unclosed:
            continue
        closed = _CLOSED[kind].search(text, opened.end()) if kind else opened
        if closed is None:
            unclosed.add(kind)
            continue
        parts.append(text[end : opened.start()])
        end = closed.end()
    return "".join([*parts, text[end:]])
