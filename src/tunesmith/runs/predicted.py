"""Predictions of a run as a Parquet table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.core.arrow import list_column, number_column, text_column
from tunesmith.core.errors import CheckpointError
from tunesmith.core.files import write_atomic
from tunesmith.evaluation.predictions import Predictions
from tunesmith.evaluation.statistics import Result
from tunesmith.evaluation.written import Written
from tunesmith.training.corpus import Corpus


def write_predictions(path: Path, results: dict[str, Result], corpus: Corpus) -> None:
    """Write one line per evaluated row: split, place in the file, and what the model did.

    With labels that is reference, prediction and probabilities; of a language model, -log p, tokens, characters and,
    where the row was answered, the answer and its references.

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
        "characters": number_column(found.characters),
        "answer": text_column(answers),
        "references": list_column(lengths, text_column(references)),
    }


def read_predictions(path: Path, split: str, labels: Sequence[str]) -> tuple[list[str], Result]:
    """Read what a run did on the rows of a split again.

    Args:
        path: the Parquet file.
        split: that was scored.
        labels: of the run, in the order of the codes; none for a model that writes.
    Returns:
        Where each row stands, and the predictions; probabilities have single precision.
    Raises:
        CheckpointError: the file is missing or damaged, or holds no such rows.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path, filters=[("split", "=", split)])
        where = table.column("where").to_pylist()
        found = _read_written(table) if "nats" in table.column_names else _read_predicted(table, labels)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: {path.parent} is not a complete run folder.") from None
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise CheckpointError(f"{path} is damaged: {error}. Train again or restore the file.") from None
    if not where:
        raise CheckpointError(f"{path} holds no rows of {split}. Train again or restore the file.")
    return where, found


def _read_predicted(table: Any, labels: Sequence[str]) -> Predictions:
    codes = {name: code for code, name in enumerate(labels)}
    references = np.array([codes[name] for name in table.column("reference").to_pylist()], np.int64)
    shares = np.array(table.column("probabilities").to_pylist(), np.float64).reshape(len(references), len(labels))
    return Predictions(shares, references)


def _read_written(table: Any) -> Written:
    answers, right = table.column("answer").to_pylist(), table.column("references").to_pylist()
    answered = [row for row, answer in enumerate(answers) if answer is not None]
    tokens = table.column("tokens").to_numpy().astype(np.int64)
    known = "characters" in table.column_names  # runs of earlier versions lack it
    return Written(
        table.column("nats").to_numpy().astype(np.float64),
        tokens,
        table.column("characters").to_numpy().astype(np.int64) if known else np.zeros_like(tokens),
        np.array(answered, np.int64),
        [answers[row] for row in answered],
        [right[row] for row in answered],
    )
