"""Rows without a label: read, kept apart from what is scored, tokenised."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.core.errors import DataError
from tunesmith.data import audit
from tunesmith.data.cleaned import read_cleaned
from tunesmith.data.examples import Columns, Examples
from tunesmith.data.splitting import Index
from tunesmith.data.token_store import tokenize_once
from tunesmith.data.tokens import TokenRows, VariedRows
from tunesmith.prompts.template import Template
from tunesmith.recipe.schema import DataSettings
from tunesmith.training.cleaning import changes_of
from tunesmith.training.corpus import Corpus, Split, Unlabelled, placed_rows, row_hashes
from tunesmith.training.parts import of_types
from tunesmith.training.reading import labelled_reader, other_columns

_REASONS = {
    "in validation or test": "also stand in validation or test",
    "in train": "also stand in train",
    "repeated": "repeat an earlier row",
    "empty": "are empty",
}


def load_unlabelled(
    data: DataSettings,
    corpus: Corpus,
    template: Template,
    tokenizer: Any,
    max_tokens: int,
    folder: Path,
    audited: bool = False,
) -> Unlabelled:
    """Read the file `data.unlabelled`; rows that are scored, have a label or stand twice are left out.

    Args:
        data: the recipe's data settings.
        corpus: the labelled splits.
        template: turns a row into the text to read.
        tokenizer: of the model.
        max_tokens: longest row. [tokens]
        folder: the recipe's, for relative paths.
        audited: read the label column too, for counting.
    Returns:
        The rows.
    Raises:
        DataError: the file cannot be used, every row is left out, or one stands in validation or test and
            `data.leakage` is error.
    """
    assert data.unlabelled is not None
    reader = labelled_reader(data.unlabelled, data, folder)
    columns = Columns(reader.only_column or data.text, data.label if audited else None, other_columns(template, data))
    examples = read_cleaned(reader, columns, data.empty == "drop", changes_of(data))
    kept, dropped = new_rows(examples, tokenizer, corpus, data.leakage)

    def tokenized(one: Template) -> tuple[TokenRows, Path | None]:
        def texts() -> Iterator[str]:
            return map(one.render, placed_rows(tokenizer, examples, kept))

        return tokenize_once(tokenizer, texts, examples.table.nbytes, max_tokens)

    (tokens, kept_in), *wordings = map(tokenized, template.wordings)
    tokens = VariedRows([tokens, *(more for more, _ in wordings)]) if wordings else tokens
    facts = audit.Audit(
        rows=len(kept),
        classes={},
        dropped=dropped,
        tokens=audit.length_facts(tokens.full_lengths),
        truncated=tokens.truncated,
        max_tokens=max_tokens,
    )
    nothing = np.full(len(kept), -1, np.int64)
    split = Split("unlabelled", examples, kept, nothing, tokens, facts, kept_in=kept_in)
    rows = len(examples) + len(examples.dropped)
    truth = _truth(examples, corpus.label_names)[kept] if audited else None
    return Unlabelled(split, rows, dropped, truth, _remarks(split, rows))


def new_rows(
    examples: Examples, reads: Any, corpus: Corpus, leakage: str, key: str = "data.unlabelled"
) -> tuple[Index, dict[str, int]]:
    """Choose rows whose text is new; count the others by reason.

    Args:
        examples: rows without labels.
        reads: a tokenizer, or a `RowMaker`.
        corpus: the labelled splits.
        leakage: the recipe's `data.leakage`; with error, rows that are scored are refused.
        key: what names the file, for errors.
    Returns:
        The rows that are neither scored, nor have a label, nor repeat an earlier one; and how many each reason left
        out.
    Raises:
        DataError: none is left, or one stands in validation or test and `leakage` is error.
    """
    known = {name: row_hashes(reads, split.examples, split.index) for name, split in corpus.splits.items()}
    hashes = row_hashes(reads, examples)
    held = [found for name, found in known.items() if name != "train"]
    scored = np.isin(hashes, np.concatenate(held)) if held else np.zeros(len(hashes), dtype=bool)
    if leakage == "error" and scored.any():
        where = examples.where[int(np.flatnonzero(scored)[0])]
        raise DataError(
            f"{examples.path} ({key}): {int(scored.sum())} rows also stand in validation or test, the first "
            f"in {where}: scores on them would be too good. Remove them, or choose data.leakage=drop."
        )
    taught = np.isin(hashes, known["train"]) & ~scored
    first = np.zeros(len(hashes), dtype=bool)
    first[np.unique(hashes, return_index=True)[1]] = True
    repeated = ~first & ~scored & ~taught
    counts = dict(zip(_REASONS, (int(one.sum()) for one in (scored, taught, repeated)), strict=False))
    counts["empty"] = len(examples.dropped)
    dropped = {reason: count for reason, count in counts.items() if count}
    kept = np.flatnonzero(~(scored | taught | repeated))
    if not len(kept):
        raise DataError(
            f"{examples.path} ({key}): none of its {len(hashes)} rows is left: {worded(dropped)}. Give a "
            "file with other texts."
        )
    return kept, dropped


def worded(dropped: dict[str, int]) -> str:
    """Say why rows were left out.

    Args:
        dropped: rows by reason, from `new_rows`.
    Returns:
        Part of a sentence.
    """
    return ", ".join(f"{count} {_REASONS[reason]}" for reason, count in dropped.items())


def _truth(examples: Examples, names: list[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    codes = {name: code for code, name in enumerate(names)}
    return np.array([codes.get(name, -1) for name in examples.label_names], dtype=np.int64)[examples.labels]


def _remarks(split: Split, rows: int) -> list[str]:
    found, facts = of_types({split.name: split.examples}), split.audit
    if facts.dropped:
        found.append(f"unlabelled: of {rows} rows {worded(facts.dropped)} and were left out.")
    if facts.truncated:
        found.append(
            f"unlabelled: {facts.truncated} of {facts.rows} rows are longer than {facts.max_tokens} tokens and were "
            "cut."
        )
    return found
