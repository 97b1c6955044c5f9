"""Whether runs were scored on the same rows: counts, places, references, and what the model read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.errors import DataError, TunesmithError
from tunesmith.core.files import read_json
from tunesmith.data.cleaned import read_cleaned
from tunesmith.data.examples import Columns
from tunesmith.data.several import Several
from tunesmith.evaluation.metrics.base import Metric
from tunesmith.evaluation.predictions import Predictions
from tunesmith.evaluation.statistics import Result
from tunesmith.runs.openings import SPLITS
from tunesmith.runs.run import Run
from tunesmith.training.cleaning import changes_of
from tunesmith.training.reading import labelled_reader

Rows = tuple[Run, list[str], Result]


def check_same_rows(runs: Sequence[Rows], split: str, metric: Metric) -> list[str]:
    """Refuse runs that were scored on different rows.

    Args:
        runs: each with where its rows stand and what it did on them.
        split: that is compared.
        metric: that is compared.
    Returns:
        Sentences for the reader where something could not be checked.
    Raises:
        DataError: rows or references differ, with the first that does; or the metric means something else in each.
    """
    first, notes = runs[0], list[str]()
    for other in runs[1:]:
        _check_places(first, other, split)
        _check_tokens(first[0], other[0], metric)
        said = _check_content(first, other, split)
        notes += [said] if said else []
    return notes


def _differ(first: Run, other: Run, split: str, what: str) -> DataError:
    return DataError(
        f"{first.folder} and {other.folder} cannot be compared: their rows of {split} differ: {what}. Compare runs "
        "that were scored on the same rows: the same data.test, or the same file and data.seed for a held-out share."
    )


def _check_places(first: Rows, other: Rows, split: str) -> None:
    runs = (first[0], other[0])
    if len(first[1]) != len(other[1]):
        raise _differ(*runs, split, f"{len(first[1]):,} and {len(other[1]):,} rows")
    ours, theirs = (_described(one) for one in (first, other))
    for row, (one, two) in enumerate(zip(ours, theirs, strict=True), 1):
        if one != two:
            raise _differ(*runs, split, f"row {row} of {len(ours):,} is {one} in the one and {two} in the other")


def _described(rows: Rows) -> list[str]:
    """Say of each row where it stands and what is right."""
    run, where, found = rows
    if isinstance(found, Predictions):
        return [f"{place} ('{run.labels[code]}')" for place, code in zip(where, found.references, strict=True)]
    right = dict(zip(found.answered.tolist(), found.right, strict=True))
    return [f"{place} ({'; '.join(right[row])[:80]!r})" if row in right else place for row, place in enumerate(where)]


def _check_tokens(first: Run, other: Run, metric: Metric) -> None:
    """Refuse numbers per token where tokens are not the same."""
    same = first.fingerprint["tokenizer_hash"] == other.fingerprint["tokenizer_hash"]
    if metric.reads == "likelihood" and metric.name != "bits-per-character" and not same:
        raise DataError(
            f"{first.folder} and {other.folder} cut texts into different tokens, so {metric.name}, which counts per "
            "token, does not compare them. Choose bits-per-character or a metric of answers (--metric)."
        )


def _check_content(first: Rows, other: Rows, split: str) -> str:
    """Compare what stands in the rows, by the surest way there is."""
    runs = first[0], other[0]
    prints = runs[0].fingerprint, runs[1].fingerprint
    if prints[0]["data_hash"] == prints[1]["data_hash"]:
        return ""
    splits = [_split(run, split) for run in runs]
    reading = [(one["tokenizer_hash"], one["max_tokens"], _prompt(run)) for one, run in zip(prints, runs, strict=True)]
    hashes = [one.get("hashes", []) for one in splits]
    if reading[0] == reading[1] and all(hashes):
        odd = next((row for row, pair in enumerate(zip(*hashes, strict=True), 1) if pair[0] != pair[1]), None)
        if odd is not None:
            raise _differ(*runs, split, f"the texts of row {odd} of {len(hashes[0]):,} are not the same")
        return ""
    files = [one.get("file", "") for one in splits]
    texts = [texts_of(run, split, where)[0] for run, where, _ in (first, other)]
    if all(texts) and files[0] != files[1]:
        odd = next((row for row, pair in enumerate(zip(*texts, strict=True), 1) if pair[0] != pair[1]), None)
        if odd is not None:
            raise _differ(*runs, split, f"the texts of row {odd} of {len(texts[0]):,} are not the same")
        return ""
    return (
        f"{runs[0].folder.name} and {runs[1].folder.name} read their texts differently, so what stands in their rows "
        f"of {split} could not be compared; number, places and references agree."
    )


def _prompt(run: Run) -> str:
    path = run.folder / "prompt.yaml"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _split(run: Run, split: str) -> dict[str, Any]:
    path = run.folder / SPLITS
    found: dict[str, Any] = read_json(path, dict).get(split, {}) if path.is_file() else {}
    return found


def texts_of(run: Run, split: str, where: Sequence[str]) -> tuple[list[str], list[str]]:
    """Read the texts of a split's rows again, for a reader; what is not there any more is left out and said.

    Args:
        run: that was scored on them.
        split: its name.
        where: each row stands, as the run recorded it.
    Returns:
        The texts, none where they cannot be read, and sentences for the reader.
    """
    facts = _split(run, split)
    if not facts or not where:
        return [], []
    data = run.recipe.recipe.data
    files = [facts["file"], *(one["file"] for one in facts.get("more", []))]
    named = " and ".join(files)
    try:
        readers = [labelled_reader(file, data, Path.cwd()) for file in files]
        column = readers[0].only_column or data.text
        reader = readers[0] if len(readers) == 1 else Several(readers)
        examples = read_cleaned(reader, Columns(column, None), True, changes_of(data))
    except TunesmithError as error:
        return [], [f"texts of rows are left out, for {named} cannot be read again: {error}"]
    at = {place: row for row, place in enumerate(examples.where)}
    if any(place not in at for place in where):
        return [], [f"texts of rows are left out, for {named} has not all of them any more."]
    return [examples.text(at[place]) for place in where], []
