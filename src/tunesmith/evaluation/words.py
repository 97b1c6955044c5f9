"""Texts as words, for metrics that compare them: any language, without a dictionary."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

# Scripts that are written without spaces count by character.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\uff66]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")
_ARTICLES = frozenset(("a", "an", "the"))

_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")


def words(text: str) -> list[str]:
    """Cut a text into lower-case words, punctuation left out; Chinese and Japanese by character.

    Args:
        text: any.
    Returns:
        The words.
    Example:
        >>> words("It's 5 o'clock, 你好!")
        ['it', 's', '5', 'o', 'clock', '你', '好']
    """
    return _WORD.findall(text.lower())


def content(text: str) -> list[str]:
    """Return the words without English articles.

    Args:
        text: any.
    Returns:
        The words.
    """
    return [word for word in words(text) if word not in _ARTICLES]


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
