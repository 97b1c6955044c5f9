"""Texts as words, for metrics that compare them: any language, without a dictionary."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence

# Scripts that are written without spaces count by character.
_ALONE = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_ALONE}]|[^\W_{_ALONE}][^\s{_ALONE}]*")
_ARTICLES = frozenset(("a", "an", "the"))

_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")


def words(text: str) -> list[str]:
    """Cut a text into lower-case words, punctuation left out; Chinese and Japanese by character.

    Vowel signs and accents that stand as characters of their own belong to their letter's word.

    Args:
        text: any.
    Returns:
        The words.
    Example:
        >>> words("It's 5 o'clock, 你好！")
        ['it', 's', '5', 'o', 'clock', '你', '好']
        >>> words("हिन्दी, உயிர்")
        ['हिन्दी', 'உயிர்']
    """
    whole = unicodedata.normalize("NFC", text).lower()
    return _WORD.findall("".join(_spelling(whole)))


def _spelling(text: str) -> Iterator[str]:
    """Go through the characters; what neither is a letter, a digit nor a mark on one becomes a space."""
    return (one if one.isalnum() or unicodedata.category(one)[0] == "M" else " " for one in text)


def content(text: str) -> list[str]:
    """Return the words without English articles; where nothing else is there, the articles, or else the signs.

    Args:
        text: any.
    Returns:
        The words.
    Example:
        >>> content("The answer."), content("A."), content("+ 1"), content("<=")
        (['answer'], ['a'], ['1'], ['<='])
    """
    found = words(text)
    return [word for word in found if word not in _ARTICLES] or found or text.split()


def grams(tokens: Sequence[str], size: int) -> Counter[tuple[str, ...]]:
    """Count runs of words.

    Args:
        tokens: words.
        size: of a run. [count]
    Returns:
        How often each occurs.
    """
    return Counter(tuple(tokens[start : start + size]) for start in range(len(tokens) - size + 1))


def f1(hits: float, written: float, right: float) -> float:
    """Return the harmonic mean of hits / written and hits / right.

    Args:
        hits: common to both.
        written: of them in the answer.
        right: of them in the reference.
    Returns:
        Between 0 and 1; 1 when both are empty.
    """
    return 2 * hits / (written + right) if written + right else 1.0


def unspaced(texts: Sequence[str]) -> bool:
    """Say whether most letters of texts belong to a script without spaces.

    Args:
        texts: any.
    Returns:
        Whether they do.
    """
    whole = "".join(texts)
    letters = sum(character.isalpha() for character in whole)
    return letters > 0 and len(_WIDE.findall(whole)) > letters / 2
