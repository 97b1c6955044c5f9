"""Splits on their way from files to token rows: kept apart, and held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tunesmith.core.errors import DataError
from tunesmith.data import audit
from tunesmith.data.examples import Examples
from tunesmith.data.splitting import Index, stratified_share


@dataclass
class Part:
    """A split on its way: which rows of which file, and how many were dropped why.

    Args:
        examples: of the file.
        index: (rows,), which of them.
        labels: (rows,), a code per row.
        dropped: rows left out, by reason.
        hashes: (rows,), of the texts.
    """

    examples: Examples
    index: Index
    labels: np.ndarray[Any, np.dtype[np.int64]]
    dropped: dict[str, int]
    hashes: audit.Hashes


def separate(parts: dict[str, Part], leakage: str) -> list[str]:
    """Deal with training rows that also stand in validation or test.

    Args:
        parts: by split.
        leakage: keep, drop or error.
    Returns:
        Sentences for the user.
    Raises:
        DataError: there are such rows and `leakage` is error.
    """
    train = parts["train"]
    others = {name: part.hashes for name, part in parts.items() if name != "train"}
    found, counts = audit.leaked(train.hashes, others)
    if not found.any():
        return []
    share = ", ".join(f"{count} rows of {name}" for name, count in counts.items() if count)
    first = train.examples.where[int(np.flatnonzero(found)[0])]
    sentence = (
        f"{share} also stand in train ({int(found.sum())} training rows, the first in {first} of "
        f"{train.examples.path}): scores on them are too good"
    )
    if leakage == "error":
        raise DataError(f"{sentence}. Remove them, or choose data.leakage=drop or keep.")
    if leakage == "drop":
        train.index, train.labels = train.index[~found], train.labels[~found]
        train.hashes = train.hashes[~found]
        train.dropped["in another split"] = int(found.sum())
        return [f"{int(found.sum())} training rows that also stand in another split were dropped (data.leakage=drop)."]
    return [f"{sentence}. data.leakage=drop removes them from train."]


def hold_out(parts: dict[str, Part], share: float, seed: int) -> None:
    """Take a share of the training rows for validation, of every label alike; copies of a text stay together.

    Args:
        parts: with "train"; "validation" is added.
        share: to hold out. [fraction]
        seed: of the draw.
    Raises:
        DataError: no row would be left for validation.
    """
    train = parts["train"]
    kept, held = stratified_share(train.labels, share, seed)
    copies = np.isin(train.hashes[held], train.hashes[kept])  # a text that also trains must not validate
    kept, held = np.sort(np.concatenate([kept, held[copies]])), held[~copies]
    if not len(held):
        raise DataError(_nothing_held(train, share))
    parts["validation"] = Part(train.examples, train.index[held], train.labels[held], {}, train.hashes[held])
    train.index, train.labels, train.hashes = train.index[kept], train.labels[kept], train.hashes[kept]


def _nothing_held(train: Part, share: float) -> str:
    labels, texts = len(np.unique(train.labels)), len(np.unique(train.hashes))
    named = f"{labels} labels and " if labels > 1 else ""
    why = "every label keeps a row for training, and copies of a text" if labels > 1 else "copies of a text"
    check = "Check data.text and data.label, raise" if labels > 1 else "Raise"
    return (
        f"{train.examples.path}: a share of {share} of {len(train.labels)} rows with {named}{texts} different texts "
        f"leaves none for validation ({why} stay together). {check} data.validation, or give a validation file."
    )
