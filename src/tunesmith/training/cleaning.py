"""Filters on the rows that would train, counted and listed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from tunesmith.core.errors import DataError, TunesmithError
from tunesmith.data.cleaning.base import Change, Cleaning, Filter, Rows, build_steps
from tunesmith.data.examples import Examples
from tunesmith.data.personal import FindNames
from tunesmith.models.tagging import open_tagger
from tunesmith.recipe.schema import DataSettings
from tunesmith.training.findings import LIST, Finding, list_findings
from tunesmith.training.parts import Part


def changes_of(data: DataSettings) -> list[Change]:
    """Return the steps of a recipe that change texts, ready to do so.

    Args:
        data: the recipe's data settings.
    Returns:
        In their order.
    Raises:
        TunesmithError: a model that a step needs cannot be loaded.
    """

    def finder(name: str) -> FindNames:
        try:
            return open_tagger(name).find
        except TunesmithError as error:
            error.args = (f"data.cleaning: {error}",)
            raise

    return [step.ready(finder) for step in build_steps(data.cleaning) if isinstance(step, Change)]


def steps_without_model(data: DataSettings) -> list[Cleaning]:
    """Return the steps that can be carried out before a model is at hand.

    Args:
        data: the recipe's data settings.
    Returns:
        In their order.
    """
    return [step for step in build_steps(data.cleaning) if not getattr(step, "needs_features", False)]


def filter_training(
    part: Part, data: DataSettings, texts: Callable[[Part], Sequence[str]], names: Sequence[str], seed: int
) -> tuple[Part, list[Finding]]:
    """Drop training rows as the recipe's filters say; those that need a model come later.

    Args:
        part: the rows that would train.
        data: the recipe's data settings.
        texts: of a part, one per row.
        names: of the labels.
        seed: of the run.
    Returns:
        The part with the rows that stay, and what was found.
    Raises:
        DataError: no row is left.
    """
    findings, rows = list[Finding](), len(part.index)
    for step in steps_without_model(data):
        if not isinstance(step, Filter):
            continue
        verdicts = step.judge(Rows(texts(part), part.labels, names, seed))
        findings += list_findings(step.name, verdicts, part.examples, part.index)
        gone = [row for row, verdict in verdicts.items() if verdict.what == "dropped"]
        if gone:
            part = part.only(np.setdiff1d(np.arange(len(part.index)), gone))
            part.dropped[step.name] = len(gone)
        check_left(len(part.index), rows, part.examples, findings)
    return part, findings


def check_left(left: int, rows: int, examples: Examples, findings: Sequence[Finding]) -> None:
    """Refuse cleaning that leaves nothing to train on.

    Args:
        left: rows that stay. [count]
        rows: there were before. [count]
        examples: the file.
        findings: so far.
    Raises:
        DataError: none stays; with how many each step dropped.
    """
    if left:
        return
    counts = Counter(one.step for one in findings if one.what == "dropped")
    shown = ", ".join(f"{step} {count:,}" for step, count in counts.items())
    raise DataError(
        f"{examples.path}: cleaning dropped every one of {rows:,} training rows ({shown}); the last one was "
        f"{findings[-1].where}: {findings[-1].why}. Loosen data.cleaning or give other rows."
    )


def changed_rows(files: Iterable[Examples]) -> Iterator[Finding]:
    """Go through the rows that steps changed.

    Args:
        files: that were read; one that stands there twice counts once.
    Returns:
        A finding per row and step.
    """
    for examples in {id(one): one for one in files}.values():
        for step, places in examples.changed.items():
            yield from (Finding(step, examples.path, where, "changed") for where in places)


def cleaning_counts(files: Iterable[Examples], findings: Iterable[Finding]) -> dict[str, dict[str, int]]:
    """Count what each step did.

    Args:
        files: that were read.
        findings: of filters.
    Returns:
        By step: rows by what was done to them.
    """
    counts: dict[str, Counter[str]] = {}
    for one in {id(one): one for one in files}.values():
        for step, places in one.changed.items():
            counts.setdefault(step, Counter())["changed"] += len(places)
    for found in findings:
        counts.setdefault(found.step, Counter())[found.what] += 1
    return {step: dict(some) for step, some in counts.items()}


def cleaning_sentences(steps: Sequence[Cleaning], files: Sequence[Examples], findings: Sequence[Finding]) -> list[str]:
    """Say what cleaning did.

    Args:
        steps: to speak of.
        files: that were read.
        findings: of filters.
    Returns:
        A sentence; none without steps.
    """
    if not steps:
        return []
    counts = cleaning_counts(files, findings)
    done = [
        f"{step.name} " + (" and ".join(f"{what} {n:,}" for what, n in counts.get(step.name, {}).items()) or "0")
        for step in steps
    ]
    return [f"cleaning, rows: {'; '.join(done)}. They are listed in {LIST} of the run."]
