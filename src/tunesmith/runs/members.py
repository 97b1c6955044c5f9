"""Members of an ensemble, ready to train: on rows of their own, in folds, or one after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from tunesmith.core.arrays import Codes
from tunesmith.core.errors import DataError, RecipeError, TunesmithError
from tunesmith.core.seeds import derived
from tunesmith.models.quantized import release
from tunesmith.recipe.loading import Checked
from tunesmith.runs.family import Family
from tunesmith.runs.preparing import Fold, Prepared, Start, prepare_one
from tunesmith.training.corpus import row_hashes
from tunesmith.training.preflight import Preflight
from tunesmith.training.processes import ALONE, Processes
from tunesmith.training.taking import taken
from tunesmith.training.trial import Trial

Fit = Callable[[Trial, Preflight, str], bool]  # trains to the end, and says whether it got there


def prepare_members(checked: Checked, family: Family, processes: Processes = ALONE) -> list[Prepared]:
    """Attach every member's delta, and what is trained beside them to combine or to compare.

    Args:
        checked: the recipe, with candidates or an ensemble whose answers or weights are put together.
        family: its model and data.
        processes: that train together; the first one scores states for all.
    Returns:
        Each member, in their order; of members that train in turn the first one.
    Raises:
        DataError: a label has too few rows for folds.
        RecipeError: weights are to be averaged that begin at different places.
    """
    making, parts = checked.ensemble, checked.combine.parts
    first = 1 if making is not None and making.in_turn else len(checked.candidates)
    folds = _folds(checked, family, parts) if parts else None
    prepared = []
    for number in range(first):
        try:
            prepared.append(_member(checked, number, family, processes))
            if folds is not None:
                prepared[-1].folds = _held_out(prepared[-1], folds, processes)
        except TunesmithError as error:
            if making is None:
                error.args = (f"candidates[{number}]: {error}",)
            raise
    if making is not None and making.compare and not making.alone:
        prepared[0].plain, _ = prepare_one(checked, "trial-000-plain", family, None, processes)
    if checked.combine.keeps == "mean" and (making is None or not making.at_once):
        _check_starts(prepared, type(checked.combine).name)
    release(family.session.backbone.model)
    return prepared


def _member(checked: Checked, number: int, family: Family, processes: Processes) -> Prepared:
    making, own = checked.ensemble, family
    begin = Start()
    if making is not None:
        begin = Start(making.start_seed(checked.recipe.seed), making.trial)
        if making.own_rows and not making.in_turn:
            split = family.corpus.splits["train"]
            draw = np.random.default_rng(derived(checked.recipe.seed, f"rows of member {number}"))
            rows = making.rows(split.labels, draw)
            own = family.on(taken(split, rows), rows)
    found = checked.candidates[number]
    trial, facts = prepare_one(found, f"trial-{number:03d}", own, None, processes, begin)
    return Prepared(found, trial, facts, own)


def _check_starts(prepared: list[Prepared], name: str) -> None:
    """Refuse to average weights that begin at different places: their mean is no place between good ones."""
    first = prepared[0].trial.tuned.parameters()
    for number, item in enumerate(prepared[1:], start=1):
        if not all(map(torch.equal, first, item.trial.tuned.parameters())):
            raise RecipeError(
                f"combine: {name} averages weights, and member {number} begins at other random weights than member 0, "
                "so their mean would be no good model. Set ensemble.same_start=true, or give candidates one seed."
            )


# Folds --------------------------------------------------------------------------------------------------------


def _folds(checked: Checked, family: Family, parts: int) -> Codes:
    """Draw the folds, every label spread over them, copies of a text together, (rows,)."""
    split, names = family.corpus.splits["train"], family.corpus.label_names
    hashes = row_hashes(family.session.reads, split.examples, split.index)
    _, first, copies = np.unique(hashes, return_index=True, return_inverse=True)
    codes = np.unique(split.labels)
    own = {code: np.intersect1d(first, np.flatnonzero(split.labels == code)) for code in codes.tolist()}
    rarest = min(own, key=lambda code: len(own[code]))
    if len(own[rarest]) < 2:
        raise DataError(
            f"combine: {type(checked.combine).name} answers each training row by members that trained on others of "
            f"its label, and the label '{names[rarest]}' has {('no', 'one')[len(own[rarest])]} row, copies of texts "
            "aside. Add a row, or take weighted."
        )
    draw = np.random.default_rng(derived(checked.recipe.seed, "folds of members"))
    found = np.zeros(len(hashes), int)
    for rows in own.values():
        drawn = draw.permutation(rows)
        found[drawn] = (np.arange(len(rows)) + draw.integers(parts)) % parts
    return found[first][copies]


def _held_out(item: Prepared, fold: Codes, processes: Processes) -> list[Fold]:
    """Prepare a member's trainings without each fold; a fold that holds no row is left out."""
    family, split, found = item.family, item.family.corpus.splits["train"], []
    for number in np.unique(fold).tolist():
        kept, held = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        own = family.on(taken(split, kept), kept)
        name = f"{item.trial.name}-fold-{number:02d}"
        trial, facts = prepare_one(item.checked, name, own, None, processes)
        found.append(Fold(own, trial, facts, held))
    return found


def out_of_fold(members: list[Prepared], family: Family) -> tuple[Any, Codes]:
    """Answer every training row by members that did not train on it.

    Args:
        members: after training, with folds.
        family: with all training rows.
    Returns:
        (K, rows, C), probabilities, and (rows,), the labels.
    Raises:
        TunesmithError: a fold's training diverged.
    """
    split, classes = family.corpus.splits["train"], len(family.corpus.label_names)
    table = np.zeros((len(members), len(split.labels), classes))
    for place, item in enumerate(members):
        for fold in item.folds:
            tuned = fold.trial.tuned
            if fold.trial.trained.diverged and not fold.trial.trained.best_epoch:
                raise TunesmithError(
                    f"combine: {item.trial.name} diverged on a part of the training rows, so they have no out-of-fold "
                    "answers. Lower training.learning_rate, or take weighted."
                )
            fold.family.settle(tuned)
            table[place, fold.held] = tuned.probabilities(split.tokens.take(fold.held)).numpy()
    return table, split.labels


# In turn ------------------------------------------------------------------------------------------------------


def train_in_turn(
    checked: Checked, family: Family, prepared: list[Prepared], fit: Fit, processes: Processes
) -> list[str]:
    """Train the second and further members, each on rows weighted by what those before it answered wrong.

    Args:
        checked: the recipe.
        family: its model and data.
        prepared: the first member, trained; the others are added.
        fit: trains one.
        processes: that train together.
    Returns:
        Sentences about why it ended early.
    Raises:
        DataError: the first member leaves nothing to go on from.
    """
    making, split, classes = checked.ensemble, family.corpus.splits["train"], len(family.corpus.taught_names)
    weights = np.ones(len(split.labels)) if split.weights is None else split.weights
    while True:
        item, number = prepared[-1], len(prepared)
        right = _right(item, family, processes)
        if number == 1:
            making.check_first(weights, right, classes)
        vote, weights = making.judged(weights, right, classes)
        if vote <= 0:
            prepared.pop()
            return [f"ensemble: member {number - 1} is no better than chance on its weighted rows: it was dropped, and "
                    f"{number - 1} members answer."]  # fmt: skip
        item.vote = vote
        if right.all() or number == making.count:
            early = number < making.count
            return [f"ensemble: member {number - 1} answers all training rows right, so boosting ended with {number} "
                    "members."] if early else []  # fmt: skip
        own = family.on(replace(split, weights=weights * len(weights)), np.arange(len(weights)))
        candidate = checked.candidates[number]
        trial, facts = prepare_one(candidate, f"trial-{number:03d}", own, None, processes)
        if not fit(trial, facts, f"member {number}"):
            return [f"ensemble: training ended in member {number}; the {number} members before it answer."]
        prepared.append(Prepared(candidate, trial, facts, own))


def _right(item: Prepared, family: Family, processes: Processes) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Say which training rows a member answers right, (rows,)."""
    split, tuned = family.corpus.splits["train"], item.trial.tuned
    item.family.settle(tuned)
    found: list[int] = processes.of_first(lambda: tuned.probabilities(split.tokens).argmax(1).tolist())
    return np.asarray(found) == split.labels
