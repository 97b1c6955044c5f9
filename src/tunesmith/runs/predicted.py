"""Predictions of a run as a Parquet table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.core.arrow import list_column, number_column, text_column
from tunesmith.core.files import write_atomic
from tunesmith.evaluation.predictions import Predictions
from tunesmith.evaluation.statistics import Result
from tunesmith.evaluation.written import Written
from tunesmith.training.corpus import Corpus


def write_predictions(path: Path, results: dict[str, Result], corpus: Corpus) -> None:
    """Write one line per evaluated row: split, place in the file, and what the model did.

    With labels that is reference, prediction and probabilities; of a language model, -log p, tokens and, where the row
    was answered, the answer and its references.

    Texts are left out; `where` finds them in the data file.

    Args:
        path: the Parquet file.
        results: by split.
        corpus: the splits.
    """
    import pyarrow as pa
    from pyarrow import parquet

    tables = []
    for name, found in results.items():
        split = corpus.splits[name]
        where = [split.examples.where[int(row)] for row in split.index]
        columns = {"split": text_column([name] * found.rows), "where": text_column(where)}
        columns |= _written(found) if isinstance(found, Written) else _predicted(found, corpus.label_names)
        tables.append(pa.Table.from_arrays([*columns.values()], [*columns]))
    write_atomic(path, lambda temporary: parquet.write_table(pa.concat_tables(tables), temporary))


def _predicted(found: Predictions, label_names: list[str]) -> dict[str, Any]:
    shares = found.probabilities.astype(np.float32)
    return {
        "reference": text_column([label_names[code] for code in found.references]),
        "predicted": text_column([label_names[code] for code in found.predicted]),
        "confidence": number_column(found.confidence),
        "probabilities": list_column([shares.shape[1]] * len(shares), number_column(shares.ravel())),
    }


def _written(found: Written) -> dict[str, Any]:
    rows = [int(row) for row in found.answered]
    answered = dict(zip(rows, zip(found.answers, found.right, strict=True), strict=True))
    answers = [answered[row][0] if row in answered else None for row in range(found.rows)]
    lengths = [len(answered[row][1]) if row in answered else None for row in range(found.rows)]
    references = [text for row in sorted(answered) for text in answered[row][1]]
    return {
        "nats": number_column(found.nats),
        "tokens": number_column(found.tokens),
        "answer": text_column(answers),
        "references": list_column(lengths, text_column(references)),
    }
