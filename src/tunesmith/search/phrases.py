"""A template as phrases: pieces of text that may go, move or be replaced, and fields that stay."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith.prompts.prompt import Prompt

_FIELD = re.compile(r"(\{(?!\{)[^{}]*\})")
_BREAK = re.compile(r"(?<=[.!?:;,])(?=\s)|(?<=\s)(?=\n)|(?<=\n)(?=\S)")


@dataclass(frozen=True)
class Phrase:
    """A piece of a template.

    Args:
        text: with the white space around it.
        fixed: whether it is a field, or nothing but white space, and stays.
    """

    text: str
    fixed: bool


def cut(template: str) -> list[Phrase]:
    """Cut a template behind punctuation and at line breaks, fields apart.

    Args:
        template: its text.
    Returns:
        The phrases; joined they are the template.
    Example:
        >>> [phrase.text for phrase in cut("Read this. Review: {text} It was {label}.")]
        ['Read this.', ' Review:', ' ', '{text}', ' It was ', '{label}', '.']
    """
    found = []
    for piece in _FIELD.split(template):
        if _FIELD.fullmatch(piece):
            found.append(Phrase(piece, True))
            continue
        for text in filter(None, _BREAK.split(piece)):
            words = text.strip()
            found.append(Phrase(text, not any(sign.isalnum() for sign in words)))
    return _apart(found)


def _apart(phrases: Sequence[Phrase]) -> list[Phrase]:
    """Set white space in front of a field apart where punctuation precedes it, so that it stays when the text goes."""
    found: list[Phrase] = []
    for phrase in phrases:
        text = phrase.text.rstrip()
        if not phrase.fixed and text[-1:] in ":.!?;," and text != phrase.text:
            found += [Phrase(text, False), Phrase(phrase.text[len(text) :], True)]
        else:
            found.append(phrase)
    return found


def joined(phrases: Sequence[Phrase | str]) -> str:
    """Put phrases together.

    Args:
        phrases: in their order.
    Returns:
        A template without doubled spaces or empty lines at its ends.
    """
    text = "".join(one if isinstance(one, str) else one.text for one in phrases)
    return re.sub(r"[ \t]{2,}", " ", text).strip()


def bare(prompt: Prompt, labels: Sequence[str]) -> str:
    """Return a prompt's own text without what rows fill, for a soft prompt to start from (method.start_text).

    Args:
        prompt: any.
        labels: of the task, whose words {labels} stands for.
    Returns:
        The text in one line, description, background and the labels' words filled in.
    Example:
        >>> bare(Prompt(template="One of {labels}. {text} It was {label}."), ["good", "bad"])
        'One of good, bad. It was .'
    """
    own = {"description": prompt.description, "background": prompt.background, "labels": prompt.listed(labels)}
    filled = ({"text": part.value, "own": own.get(part.value, " "), "row": " "}[part.kind] for part in prompt.parts)
    return " ".join("".join(filled).split())


def free(phrases: Sequence[Phrase]) -> list[int]:
    """Return the places of the phrases that may change.

    Args:
        phrases: of a template.
    Returns:
        Their numbers.
    """
    return [number for number, phrase in enumerate(phrases) if not phrase.fixed]


def reworded(phrase: Phrase, words: str) -> str:
    """Write other words in the place of a phrase, with its white space.

    Args:
        phrase: any.
        words: the new ones.
    Returns:
        The text.
    """
    inner = phrase.text.strip()
    return phrase.text.replace(inner, words, 1) if inner else phrase.text + words
