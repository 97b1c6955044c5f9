"""Predictions of a run as a Parquet table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

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
        places = {"split": [name] * found.rows, "where": [split.examples.where[int(row)] for row in split.index]}
        columns = _written(found) if isinstance(found, Written) else _predicted(found, corpus.label_names)
        tables.append(pa.table({**places, **columns}))
    write_atomic(path, lambda temporary: parquet.write_table(pa.concat_tables(tables), temporary))


def _predicted(found: Predictions, label_names: list[str]) -> dict[str, Any]:
    import pyarrow as pa

    names = np.array(label_names)
    return {
        "reference": names[found.references],
        "predicted": names[found.predicted],
        "confidence": found.confidence,
        "probabilities": pa.array(found.probabilities.astype(np.float32).tolist(), pa.list_(pa.float32())),
    }


def _written(found: Written) -> dict[str, Any]:
    import pyarrow as pa

    rows = [int(row) for row in found.answered]
    answered = dict(zip(rows, zip(found.answers, found.right, strict=True), strict=True))
    answers = [answered[row][0] if row in answered else None for row in range(found.rows)]
    references = [answered[row][1] if row in answered else None for row in range(found.rows)]
    return {
        "nats": found.nats,
        "tokens": found.tokens,
        "answer": pa.array(answers, pa.string()),
        "references": pa.array(references, pa.list_(pa.string())),
    }
