"""Predictions of a run as a Parquet table."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tunesmith.core.files import write_atomic
from tunesmith.evaluation.predictions import Predictions
from tunesmith.training.corpus import Corpus


def write_predictions(path: Path, predictions: dict[str, Predictions], corpus: Corpus) -> None:
    """Write one line per evaluated row: split, place in the file, reference, prediction, probabilities.

    Texts are left out; `where` finds them in the data file.

    Args:
        path: the Parquet file.
        predictions: by split.
        corpus: the splits.
    """
    import pyarrow as pa
    from pyarrow import parquet

    names = np.array(corpus.label_names)
    tables = []
    for name, found in predictions.items():
        split = corpus.splits[name]
        tables.append(
            pa.table(
                {
                    "split": [name] * found.rows,
                    "where": [split.examples.where[int(row)] for row in split.index],
                    "reference": names[found.references],
                    "predicted": names[found.predicted],
                    "confidence": found.confidence,
                    "probabilities": pa.array(found.probabilities.astype(np.float32).tolist(), pa.list_(pa.float32())),
                }
            )
        )
    write_atomic(path, lambda temporary: parquet.write_table(pa.concat_tables(tables), temporary))
