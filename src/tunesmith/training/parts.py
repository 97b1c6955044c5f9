"""Splits on their way from files to token rows: kept apart, and held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from tunesmith.core.errors import DataError
from tunesmith.core.seeds import derived
from tunesmith.data import audit
from tunesmith.data.cleaning.base import Verdict
from tunesmith.data.examples import Examples
from tunesmith.data.near import joined_groups, near_groups, together, worded
from tunesmith.data.splitting import Index, grouped_share, latest_share, stratified_folds, stratified_share
from tunesmith.recipe.schema import DataSettings
from tunesmith.training.findings import LIST, Finding, list_findings

_DRAWS = {"test": "test split", "validation": "split"}  # what their seeds are derived for


@dataclass
class Part:
    """A split on its way: which rows of which file, and how many were dropped why.

    Args:
        examples: of the file.
        index: (rows,), which of them.
        labels: (rows,), a code per row.
        dropped: rows left out, by reason.
        hashes: (rows,), of the texts.
        groups: (rows,), a number per group of rows that stay in one split; None when rows are split one by one.
        times: (rows,), numbers that grow with time; None when rows are drawn at random.
    """

    examples: Examples
    index: Index
    labels: np.ndarray[Any, np.dtype[np.int64]]
    dropped: dict[str, int]
    hashes: audit.Hashes
    groups: Index | None = None
    times: np.ndarray[Any, np.dtype[np.float64]] | None = None

    @property
    def size(self) -> int:
        """About how long the rows' columns are together. [bytes]"""
        return self.examples.table.nbytes * len(self.index) // max(1, len(self.examples))

    def only(self, rows: Index | slice) -> Part:
        """Return the part with some of its rows.

        Args:
            rows: which.
        Returns:
            A part of the same file.
        """
        groups = None if self.groups is None else self.groups[rows]
        times = None if self.times is None else self.times[rows]
        return replace(self, index=self.index[rows], labels=self.labels[rows], hashes=self.hashes[rows],
                       groups=groups, times=times)  # fmt: skip

    def together(self) -> int:
        """Count the rows that share their group with another row.

        Returns:
            How many; 0 when rows are split one by one. [count]
        """
        return 0 if self.groups is None else together(self.groups)


def of_types(files: Mapping[str, Examples]) -> list[str]:
    """Remark on columns whose cells are of several types: most often a cell was damaged on its way.

    Args:
        files: by split.
    Returns:
        Sentences for the user.
    """
    return [f"{name}: {sentence} Correct the file if that is not meant."
            for name, examples in files.items() for sentence in examples.mixed]  # fmt: skip


def separate(parts: dict[str, Part], leakage: str) -> tuple[list[str], list[Finding]]:
    """Deal with training rows that also stand in validation or test, and remark on rows that stand in both of these.

    Args:
        parts: by split.
        leakage: keep, drop or error.
    Returns:
        Sentences for the user, and the rows that were dropped.
    Raises:
        DataError: there are such rows and `leakage` is error.
    """
    train = parts["train"]
    others = {name: part.hashes for name, part in parts.items() if name != "train"}
    found, counts = audit.leaked(train.hashes, others)
    said = _chosen_on(parts, leakage)
    if not found.any():
        return said, []
    share = ", ".join(f"{count} rows of {name}" for name, count in counts.items() if count)
    first = train.examples.where[int(np.flatnonzero(found)[0])]
    sentence = (
        f"{share} also stand in train ({int(found.sum())} training rows, the first in {first} of "
        f"{train.examples.path}): scores on them are too good"
    )
    if leakage == "error":
        raise DataError(f"{sentence}. Remove them, or choose data.leakage=drop or keep.")
    if leakage == "drop":
        if found.all():
            raise DataError(
                f"{train.examples.path}: every one of {len(found):,} training rows also stands in another split, so "
                "data.leakage=drop leaves none. Give other rows, or look whether one file was named twice."
            )
        parts["train"] = train.only(np.flatnonzero(~found))
        dropped = train.dropped["in another split"] = int(found.sum())
        sentence = f"{dropped} training rows that also stand in another split were dropped (data.leakage=drop)"
        verdicts = _standing(parts, train, np.flatnonzero(found))
        findings = list_findings("leakage", verdicts, train.examples, train.index)
        return [f"{sentence}. They are listed in {LIST} of the run.", *said], findings
    return [f"{sentence}. data.leakage=drop removes them from train.", *said], []


def _standing(parts: Mapping[str, Part], train: Part, rows: Index) -> dict[int, Verdict]:
    """Say of training rows where else they stand."""
    wanted, places = train.hashes[rows], dict[int, str]()
    for name, part in parts.items():
        for row in [] if name == "train" else np.flatnonzero(np.isin(part.hashes, wanted)):
            places.setdefault(int(part.hashes[row]), f"{name}, {part.examples.where[int(part.index[row])]}")
    return {int(row): Verdict(f"also stands in {places[int(train.hashes[row])]}") for row in rows}


def _chosen_on(parts: Mapping[str, Part], leakage: str) -> list[str]:
    """Remark on rows of test that validation, which chooses, holds too."""
    if not {"validation", "test"} <= parts.keys():
        return []
    both = int(np.isin(parts["test"].hashes, parts["validation"].hashes).sum())
    if not both:
        return []
    sentence = (
        f"{both} rows of test also stand in validation: what is chosen there, as the best epoch, makes scores on them "
        "too good. Give the two splits rows of their own."
    )
    if leakage == "error":
        raise DataError(sentence)
    return [sentence]


def shares(data: DataSettings) -> dict[str, float]:
    """Return which splits are shares of the training file.

    Args:
        data: the recipe's data settings.
    Returns:
        Share by split, in the order in which they are drawn: a test share does not depend on the validation share.
    """
    given = {"test": data.test, "validation": None if data.folds else data.validation}
    return {name: float(value) for name, value in given.items() if isinstance(value, float)}


def hold_out(parts: dict[str, Part], wanted: Mapping[str, float], seed: int) -> None:
    """Take shares of the training rows, of every label alike; copies of a text, and rows of a group, stay together.

    Args:
        parts: with "train"; the splits wanted are added.
        wanted: share of the training rows by split, from `shares`. [fraction]
        seed: of the run.
    Raises:
        DataError: no row would be left for a split.
    """
    train = parts["train"]
    rows = len(train.labels)
    if wanted and train.groups is not None:  # a text of two groups joins them, or a group would stand in two splits
        train.groups = joined_groups(train.groups, np.unique(train.hashes, return_inverse=True)[1])
    for name, share in wanted.items():
        rest, draw = share * rows / len(train.labels), derived(seed, _DRAWS[name])
        if train.times is not None:
            kept, held = latest_share(train.times, rest)
        elif train.groups is None:
            kept, held = stratified_share(train.labels, rest, draw)
        else:
            kept, held = grouped_share(train.labels, train.groups, rest, draw)
        copies = np.isin(train.hashes[held], train.hashes[kept])  # a text that also trains must not be scored
        late = train.times is not None and bool(copies.any())  # later rows do not train, so copies count for nothing
        if train.times is None:
            kept = np.sort(np.concatenate([kept, held[copies]]))
        held = held[~copies]
        if not len(held):
            raise DataError(_nothing_held(train, name, share, rows))
        parts[name] = replace(train.only(held), dropped={"also in train": int(copies.sum())} if late else {})
        train = parts["train"] = train.only(kept)


def hold_out_fold(parts: dict[str, Part], data: DataSettings, seed: int) -> None:
    """Take one fold of the training rows for validation; copies of a text, and rows of a group, stay together.

    Args:
        parts: with "train"; "validation" is added.
        data: the recipe's data settings, with folds.
        seed: of the draw.
    Raises:
        DataError: there are fewer rows, or groups, than folds, and this fold has none.
    """
    train = parts["train"]
    assert data.folds is not None
    copies = np.unique(train.hashes, return_inverse=True)[1]
    groups = copies if train.groups is None else joined_groups(train.groups, copies)
    repeat, fold = divmod(data.fold, data.folds)
    draw = derived(seed, f"folds {repeat}" if repeat else "folds")
    held = stratified_folds(train.labels, data.folds, draw, groups) == fold
    if not held.any():
        raise DataError(
            f"{train.examples.path}: data.fold={data.fold} of data.folds={data.folds} has no row: the {len(held)} rows "
            f"make {len(np.unique(groups))} groups of equal texts, or of data.group, which stay together. Lower "
            "data.folds."
        )
    parts["validation"] = replace(train.only(np.flatnonzero(held)), dropped={})
    parts["train"] = train.only(np.flatnonzero(~held))


def split_by_columns(part: Part, data: DataSettings) -> list[str]:
    """Read what rows are split by: groups that stay together, or times.

    Args:
        part: the training rows, before anything is held out.
        data: the recipe's data settings.
    Returns:
        Sentences for the user.
    Raises:
        DataError: a time that is neither a date nor a number.
    """
    said = []
    if data.group is not None:
        part.groups = np.unique(_column(part, data.group), return_inverse=True)[1]
        said.append(f"groups: {len(part.index):,} rows of {int(part.groups.max()) + 1:,} values of '{data.group}' "
                    "are held out in whole groups.")  # fmt: skip
    if data.time is not None:
        cells = _column(part, data.time)
        part.times = np.array([_time(cell, part, row, data.time) for row, cell in enumerate(cells)])
        _check_times(cells, part, data.time)
        ends = (cells[int(part.times.argmin())], cells[int(part.times.argmax())])
        said.append(f"time: held out are the latest rows by '{data.time}', from {ends[0]} to {ends[1]} in all.")
    return said


def _column(part: Part, name: str) -> list[str]:
    return [row[name] for row in part.examples.rows(part.index)]


def _time(cell: str, part: Part, row: int, column: str) -> float:
    for read in (float, _seconds):
        try:
            found = read(cell)
        except (ValueError, OverflowError):
            continue
        if np.isfinite(found):
            return found
    where = part.examples.where[int(part.index[row])]
    raise DataError(
        f"{part.examples.path}, {where}: '{cell}' in column '{column}' is neither a number nor a date as 2024-05-31 or "
        "2024-05-31T10:30:00. Write it so, or leave out data.time."
    )


def _check_times(cells: Sequence[str], part: Part, column: str) -> None:
    """Refuse numbers beside dates: which of the two is later is nothing that could be known."""
    numbers = np.array([_is_number(cell) for cell in cells], dtype=bool)
    if numbers.all() or not numbers.any():
        return
    first = (int(np.flatnonzero(numbers)[0]), int(np.flatnonzero(~numbers)[0]))
    number, date = (f"'{cells[row]}' ({part.examples.where[int(part.index[row])]})" for row in first)
    raise DataError(
        f"{part.examples.path}: column '{column}' holds both numbers, as {number}, and dates, as {date}, so their "
        "order is not known. Write all of them in one way, or leave out data.time."
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _seconds(cell: str) -> float:
    found = datetime.fromisoformat(cell.strip())
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _nothing_held(train: Part, name: str, share: float, rows: int) -> str:
    labels, texts = len(np.unique(train.labels)), len(np.unique(train.hashes))
    named = f"{labels} labels and " if labels > 1 else ""
    alike = "copies of a text" if train.groups is None else "rows of a group"
    why = f"every label keeps a row for training, and {alike}" if labels > 1 else alike
    check = "Check data.text and data.label, raise" if labels > 1 else "Raise"
    return (
        f"{train.examples.path}: a share of {share} of {rows} rows with {named}{texts} different texts "
        f"leaves none for {name} ({why} stay together). {check} data.{name}, or give a {name} file."
    )


def keep_near_together(part: Part, sides: Sequence[Sequence[str]], threshold: float) -> str:
    """Number the groups of near copies, which no split will separate.

    Args:
        part: the training rows, before anything is held out.
        sides: one text per row each.
        threshold: least similarity of near copies.
    Returns:
        A sentence for the user.
    Raises:
        DataError: one group holds more than half of the rows.
    """
    near = near_groups(sides, threshold)
    part.groups = near if part.groups is None else joined_groups(part.groups, near)
    return worded(near, threshold)
