"""What labels mean in words: their names, and a file of descriptions where there is one."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from tunesmith.core.errors import DataError, RecipeError, unknown
from tunesmith.data.columns import kind_of
from tunesmith.recipe.lines import parse
from tunesmith.recipe.prompt import spelling


def spoken(label: str) -> str:
    """Write a label as words.

    Args:
        label: as the data have it.
    Returns:
        Its words.
    Example:
        >>> spoken("card_arrival")
        'card arrival'
    """
    return " ".join(label.replace("_", " ").replace("-", " ").split())


def spelled_alike(labels: Sequence[str]) -> list[tuple[str, str]]:
    """Find labels that are the same words in another spelling.

    Args:
        labels: any.
    Returns:
        Pairs: the first of each kind, and one that is spelled otherwise.
    Example:
        >>> spelled_alike(["Card arrival", "card_arrival", "other"])
        [('Card arrival', 'card_arrival')]
    """
    return _met_again((spelling(label), label) for label in labels)


def same_numbers(labels: Sequence[str]) -> list[tuple[str, str]]:
    """Find labels that are the same number in another spelling.

    Args:
        labels: any.
    Returns:
        Pairs: the first of each number, and one that is spelled otherwise.
    Example:
        >>> same_numbers(["3", "3.0", "2.5", "three"])
        [('3', '3.0')]
    """
    numbers = (label for label in labels if kind_of(label) == "number" and "e" not in label.lower())
    return _met_again((Decimal(label), label) for label in numbers)


def _met_again(labels: Iterable[tuple[Hashable, str]]) -> list[tuple[str, str]]:
    """Pair the first label of each key with those of the same key that are spelled otherwise."""
    first: dict[Hashable, str] = {}
    found = [(first.setdefault(key, label), label) for key, label in labels]
    return [(one, other) for one, other in found if one != other]


def label_texts(labels: Sequence[str], path: str | None) -> list[list[str]]:
    """Return the texts of every label: its name in words, and its description where it has one.

    Args:
        labels: in the order of their codes.
        path: file of descriptions, YAML or JSON, label to text; None for names alone.
    Returns:
        One or two texts per label.
    Raises:
        DataError: the file cannot be read, describes a label that does not exist, or describes one with nothing.
    """
    descriptions = {} if path is None else _read(path)
    for label, text in descriptions.items():
        if label not in labels:
            raise DataError(f"{path}: {unknown('label', label, labels)}. Correct the name, or leave it out.")
        if not isinstance(text, str) or not text.strip():
            raise DataError(
                f"{path}: the description of '{label}' is {text!r}; a text is needed. Write one, or leave the label "
                "out to use its name alone."
            )
    return [[spoken(label) or label, *([" ".join(descriptions[label].split())] if label in descriptions else [])]
            for label in labels]  # fmt: skip


def check_spelling(labels: Sequence[str]) -> None:
    """Refuse labels whose texts would be the same, where texts are what tells them apart.

    Args:
        labels: any.
    Raises:
        DataError: two labels are the same words.
    """
    for one, other in spelled_alike(labels):
        raise DataError(
            f"the labels '{one}' and '{other}' are the same words in another spelling, so their texts do not tell them "
            "apart. Give both rows one spelling, or name a method and a head that do not start from label texts."
        )


def same_tokens(labels: Sequence[str], texts: Sequence[Sequence[str]], tokenizer: Any) -> str | None:
    """Say which labels' texts are one to a model: what a tokenizer does not know it reads as the same token.

    Args:
        labels: as in the data.
        texts: of each label, at least one.
        tokenizer: of the model.
    Returns:
        A clause about the first two such labels, or None.
    """
    pairs = _met_again(zip(_tokens(texts, tokenizer), labels, strict=True))
    return next((f"the texts of the labels '{one}' and '{other}' are the same tokens" for one, other in pairs), None)


def unknown_texts(labels: Sequence[str], texts: Sequence[Sequence[str]], tokenizer: Any) -> str | None:
    """Say which labels' texts have no token that a tokenizer knows.

    Args:
        labels: as in the data.
        texts: of each label, at least one.
        tokenizer: of the model.
    Returns:
        A clause about the first such label, or None.
    """
    for label, ids in zip(labels, _tokens(texts, tokenizer), strict=True):
        if all(token == tokenizer.unk_token_id for some in ids for token in some):
            return f"the tokenizer knows no part of the text of the label '{label}'"
    return None


def _tokens(texts: Sequence[Sequence[str]], tokenizer: Any) -> list[tuple[tuple[int, ...], ...]]:
    encoded = (tokenizer(list(own), add_special_tokens=False, verbose=False)["input_ids"] for own in texts)
    return [tuple(map(tuple, ids)) for ids in encoded]


def _read(path: str) -> dict[str, Any]:
    where = f"data.label_descriptions: {path}"
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{where} cannot be read: {why}. Give a YAML or JSON file.") from None
    try:
        found, _ = parse(text, where, "a file of descriptions", "card_arrival: the card has not come")  # JSON is YAML
    except RecipeError as error:
        raise DataError(str(error)) from None
    for label in found:
        if not isinstance(label, str):
            raise DataError(f"{where}: the label {label!r} is no text; write it in quotation marks.")
    return found
