"""Classes without a training row in a run: told by their attributes, and measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from tunesmith.core.arrays import Array
from tunesmith.core.errors import DataError, RecipeError
from tunesmith.data.examples import Examples
from tunesmith.data.tokens import TokenRows
from tunesmith.fewshot.attribute_table import AttributeTable, read_table
from tunesmith.fewshot.attributes.base import AttributeWay
from tunesmith.fewshot.unseen import Unseen, fewest_taught, measure_unseen
from tunesmith.models.backbone import length_sorted
from tunesmith.models.layout import ragged
from tunesmith.recipe.loading import Checked
from tunesmith.runs.family import Family
from tunesmith.tasks.rejecting import OUTSIDE
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.corpus import FEW, placed_rows, row_hashes
from tunesmith.training.reading import read_labelled, resolve_path

_PARTS = 16  # of a row, spread evenly over its tokens
_TOKENS, _ROWS = 1024, 64  # of one batch
Rows = tuple[list[str], TokenRows]  # cells as they are read, and tokens


@dataclass(frozen=True)
class UnseenClasses:
    """Rows of classes that nothing is learned from, and what is known of all classes.

    Args:
        way: how attributes are found.
        table: of all classes.
        names: of the unseen classes, sorted.
        rows: of them.
        labels: of those rows.
        measured: what was found before training; None where the tuned model reads the rows.
    """

    way: AttributeWay
    table: AttributeTable
    names: list[str]
    rows: Rows
    labels: list[str]
    measured: Unseen | None = None

    @classmethod
    def open(cls, checked: Checked, family: Family) -> UnseenClasses | None:
        """Read a recipe's table and the rows of its unseen classes, and measure what can be, before anything trains.

        Args:
            checked: the recipe.
            family: its model and data.
        Returns:
            They; None for a recipe without `attributes`.
        Raises:
            DataError: table or rows cannot be used, or do not fit the data's classes.
            RecipeError: rules that do not fit the table or the rows.
        """
        way, data, session = checked.attributes, checked.recipe.data, family.session
        if way is None or data.unseen is None:
            return None
        table = read_table(resolve_path(way.table, checked.folder))
        way.check(table.attributes)
        _check_measured(way, session.task)
        examples = read_labelled(data.unseen, data, session.template, checked.folder)
        known = [name for name in family.corpus.label_names if name != OUTSIDE]
        both = next((name for name in examples.label_names if name in known), None)
        if both is not None:
            raise DataError(
                f"{examples.path} (data.unseen): the label '{both}' has training rows, so it is not unseen. Leave its "
                "rows out there, or in train, validation and test."
            )
        names = sorted(examples.label_names)
        table.check(known, names)
        tokens, _ = family.encode(session, placed_rows(session.reads, examples))
        labels = [examples.label(row) for row in range(len(examples))]
        family.corpus.warnings.extend([*_remarks(examples, family), *_said_of_seen(table, known)])
        found = cls(way, table, names, (_cells(family, examples), tokens), labels)
        way.check_rows(fewest_taught(_labels(family, "train"), family.judge.bootstrap.seed), _PARTS)
        return replace(found, measured=found._found(None, family)) if way.reads == "measurements" else found

    def measure(self, tuned: Tuned, family: Family) -> dict[str, Any]:
        """Learn attributes from the training rows and tell the rows of seen and unseen classes.

        Args:
            tuned: with the best state.
            family: with the splits.
        Returns:
            Plain values: shares with intervals, the way, and a sentence.
        """
        found = self.measured or self._found(tuned, family)
        plain = {**self.way.describe(), "classes": self.names, **found.plain()}
        said = _worded(plain, family.judge.splits[-1], len(family.corpus.label_names))
        plain["sentences"] = [said, *_said_of_alike(found.alike)]
        return plain

    def _found(self, tuned: Tuned | None, family: Family) -> Unseen:
        """Learn attributes from the training rows and tell the others; what is measured needs no model."""
        splits = [self._split(family, name) for name in ("train", family.judge.splits[-1])]
        read = [_Read(self.way, tuned, family, *one).rows() for one in (*splits, (self.rows, self.labels))]
        taught, tested = read[0], read[1:]
        rows, labels = np.concatenate([one for one, _ in tested]), [name for _, some in tested for name in some]
        return measure_unseen(self.way, self.table, self.names, taught, (rows, labels), family.judge.bootstrap)

    def _split(self, family: Family, name: str) -> tuple[Rows, list[str]]:
        split = family.corpus.splits[name]
        return (_cells(family, split.examples, split.index), split.tokens), _labels(family, name)


def _labels(family: Family, name: str) -> list[str]:
    return [family.corpus.label_names[code] for code in family.corpus.splits[name].labels]


def _remarks(examples: Examples, family: Family) -> list[str]:
    """Say what makes scores on the rows of unseen classes worth little."""
    train, reads, said = family.corpus.splits["train"], family.session.reads, list[str]()
    both = int(np.isin(row_hashes(reads, examples), row_hashes(reads, train.examples, train.index)).sum())
    if both:
        said.append(f"unseen: {both} rows also stand in train, under labels of seen classes; check those labels.")
    if len(examples) < FEW:
        said.append(f"unseen: only {len(examples)} rows, so its scores and intervals say little.")
    return said


def _said_of_seen(table: AttributeTable, seen: list[str]) -> list[str]:
    """Remark on seen classes that attributes cannot tell apart; unseen ones are refused."""
    alike = table.alike(seen)
    if not alike:
        return []
    return [
        f"{table.where}: the classes '{alike[0][0]}' and '{alike[0][1]}' have the same value in every attribute "
        f"({len(alike)} such pairs), so among all classes their rows are told by chance. Add an attribute in which "
        "they differ."
    ]


@dataclass(frozen=True)
class _Read:
    """Rows as a way reads them; rows out of scope are left aside."""

    way: AttributeWay
    tuned: Tuned | None
    family: Family
    given: Rows
    labels: list[str]

    def rows(self) -> tuple[Array, list[str]]:
        kept = np.array([row for row, name in enumerate(self.labels) if name != OUTSIDE], dtype=np.int64)
        tokens = self.given[1].wordings[0].take(kept)
        read = {"features": self._features, "parts": self._parts, "measurements": self._measured}[self.way.reads]
        return np.asarray(read(tokens, kept), np.float64), [self.labels[row] for row in kept]

    def _features(self, tokens: TokenRows, kept: Any) -> Any:
        assert self.tuned is not None
        return self.tuned.features(tokens).numpy()

    @torch.no_grad()
    def _parts(self, tokens: TokenRows, kept: Any) -> Any:
        """Take hidden states of some tokens of every row, (rows, P, D)."""
        assert self.tuned is not None
        backbone = self.tuned.backbone
        self.tuned.train(False)
        backbone.seams.use(self.tuned.delta.name)
        found = np.zeros((len(tokens), _PARTS, backbone.width), np.float32)
        for numbers in length_sorted(tokens.lengths.tolist(), _TOKENS, _ROWS):
            batch = ragged([torch.from_numpy(tokens[number]) for number in numbers], numbers)
            hidden = backbone.hidden(batch).float().cpu().numpy()
            for row, start, length in zip(batch.index, batch.layout.starts, batch.layout.lengths, strict=False):
                found[int(row)] = hidden[start + np.linspace(0, length - 1, _PARTS).round().astype(int)]
        return found

    def _measured(self, tokens: TokenRows, kept: Any) -> Any:
        measurements: Any = self.way.measurements  # type: ignore[attr-defined]
        pictures = self.family.session.pictures
        if pictures is None:
            return measurements.measure([self.given[0][row] for row in kept])
        numbers = [int(tokens[row][0]) // pictures.length for row in range(len(tokens))]
        return measurements.measure(pictures.pixels(numbers).mean(1))


def _cells(family: Family, examples: Examples, index: Any = None) -> list[str]:
    return [row["text"] for row in placed_rows(family.session.reads, examples, index)]


def _check_measured(way: AttributeWay, task: Any) -> None:
    measurements = getattr(way, "measurements", None)
    if measurements is not None and measurements.reads != task.reads:
        raise RecipeError(
            f"attributes.measurements: {measurements.name} is of {measurements.reads}, and the task '{task.name}' "
            f"reads {task.reads}. Choose other measurements."
        )


def _said_of_alike(alike: tuple[str, ...]) -> list[str]:
    if not alike:
        return []
    return [
        f"the unseen classes {', '.join(alike)} have one and the same value in all attributes that can be learned: the "
        "attributes in which they differ are the same in every class with training rows. Add attributes that some of "
        "those classes share."
    ]


def _worded(found: dict[str, Any], split: str, seen: int) -> str:
    def share(name: str) -> str:
        value, low, high = (100 * found[name][key] for key in ("value", "low", "high"))
        return f"{value:.1f} % ({low:.1f} to {high:.1f})"

    return (
        f"unseen classes by attributes ({found['name']}): {share('zero_shot')} of their rows are right among the "
        f"{len(found['classes'])} unseen classes, chance is {100 * found['chance']:.1f} %; among all "
        f"{seen + len(found['classes'])} classes {share('unseen')}, rows of seen classes in {split} {share('seen')}, "
        f"harmonic mean {share('harmonic')}."
    )
