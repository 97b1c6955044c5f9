"""What was read: counts, duplicates, rows in several splits, balance, lengths."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tunesmith.core.errors import DataError, nearest
from tunesmith.data.examples import Examples

Hashes = np.ndarray[Any, np.dtype[np.uint64]]


@dataclass(frozen=True)
class Audit:
    """Facts about one split.

    Args:
        rows: in use.
        classes: rows per label, most frequent first.
        dropped: rows left out, by reason.
        duplicates: rows whose text stood in an earlier row, letter case and spacing aside.
        conflicts: duplicates whose label differs from the first one's.
        in_train: rows of this split whose text also stands in train.
        tokens: lengths: median, p95, longest.
        truncated: rows longer than the limit, cut.
        max_tokens: the limit.
        learned: tokens that a language model learns; 0 for tasks with labels.
        silent: conversations left out because no token of an answer was left after cutting; where the first stand.
        together: rows in groups of near copies, which were kept in one split.
    """

    rows: int
    classes: dict[str, int]
    dropped: dict[str, int]
    duplicates: int = 0
    conflicts: int = 0
    in_train: int = 0
    tokens: dict[str, int] = field(default_factory=dict)
    truncated: int = 0
    max_tokens: int = 0
    learned: int = 0
    silent: list[str] = field(default_factory=list)
    together: int = 0

    def plain(self) -> dict[str, Any]:
        """Return the facts as plain values."""
        return asdict(self)


def text_hashes(texts: Iterable[str]) -> Hashes:
    """Hash texts, letter case and spacing aside, so that copies are found without holding the texts.

    Args:
        texts: any number.
    Returns:
        (rows,), uint64; 64 bits, so a false match among a million rows has a chance of 3e-8.
    """
    return np.fromiter((_hash(text) for text in texts), dtype=np.uint64)


def hash_64(content: bytes) -> int:
    """Hash bytes into 64 bits.

    Args:
        content: any.
    Returns:
        A whole number from 0 to 2^64 - 1.
    """
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def _hash(text: str) -> int:
    return hash_64(" ".join(text.lower().split()).encode("utf-8", "surrogatepass"))


def duplicates(hashes: Hashes, labels: np.ndarray[Any, Any]) -> tuple[int, int]:
    """Count rows that repeat an earlier one, and those that contradict it.

    Args:
        hashes: from `text_hashes`.
        labels: (rows,), a class code per row.
    Returns:
        (duplicates, conflicts).
    """
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    repeated = first[inverse] != np.arange(len(hashes))
    differs = labels != labels[first[inverse]]
    return int(repeated.sum()), int((repeated & differs).sum())


def class_counts(labels: np.ndarray[Any, Any], names: list[str]) -> dict[str, int]:
    """Count rows per class, most frequent first.

    Args:
        labels: (rows,), codes.
        names: of the codes.
    Returns:
        Name to count.
    """
    counts = np.bincount(labels, minlength=len(names))
    order = np.argsort(-counts, kind="stable")
    return {names[code]: int(counts[code]) for code in order if counts[code]}


def length_facts(lengths: np.ndarray[Any, Any]) -> dict[str, int]:
    """Summarise lengths in tokens.

    Args:
        lengths: (rows,), before truncation.
    Returns:
        median, p95, longest. [tokens]
    """
    return {
        "median": int(np.median(lengths)),
        "p95": int(np.percentile(lengths, 95)),
        "longest": int(lengths.max()),
    }


def align_labels(
    split: str, examples: Examples, names: list[str], outside: str | None = None
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Translate a split's label codes into the training codes.

    Args:
        split: its name, for the error.
        examples: of the split.
        names: the training labels, in the order of their codes.
        outside: what the data call rows of the last label, which is what is out of scope; None where they call it that.
    Returns:
        (rows,), int64.
    Raises:
        DataError: a label that train lacks.
    """
    codes = {name: code for code, name in enumerate(names)}
    if outside is not None:
        codes[outside] = len(names) - 1
    foreign = [name for name in examples.label_names if name not in codes]
    if foreign:
        rows = np.flatnonzero(np.isin(examples.labels, [examples.label_names.index(name) for name in foreign]))
        near = nearest(foreign[0], names)
        hint = f" Did you mean '{near}'?" if near else ""
        raise DataError(
            f"{examples.path} ({split}), {examples.where[int(rows[0])]}: the label '{foreign[0]}' does not occur in "
            f"train ({len(foreign)} such label{'s' if len(foreign) > 1 else ''}, {len(rows)} rows).{hint} "
            "A model cannot learn a label it never sees: correct the label, or add examples to train."
        )
    return np.array([codes[name] for name in examples.label_names], dtype=np.int64)[examples.labels]


def check_classes(examples: Examples) -> None:
    """Refuse training data with fewer than two labels.

    Args:
        examples: the training rows.
    Raises:
        DataError: one class only.
    """
    if len(examples.label_names) < 2:
        raise DataError(
            f"{examples.path}: every row has the label '{examples.label_names[0]}'. A classifier needs at least two; "
            f"check that data.label='{examples.columns.label}' is the right column."
        )


def leaked(train: Hashes, others: Mapping[str, Hashes]) -> tuple[np.ndarray[Any, np.dtype[np.bool_]], dict[str, int]]:
    """Find training rows whose text also stands in another split.

    Args:
        train: hashes of the training rows.
        others: hashes by split.
    Returns:
        (rows of train,), bool; and per split how many of its rows stand in train.
    """
    found = np.zeros(len(train), dtype=bool)
    counts = {}
    for name, hashes in others.items():
        found |= np.isin(train, hashes)
        counts[name] = int(np.isin(hashes, train).sum())
    return found, counts
