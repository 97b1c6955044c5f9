"""From a checked recipe to trials that are ready to train, each proven to do something."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tunesmith.core.errors import RecipeError, TunesmithError
from tunesmith.core.seeds import derived, seed_everything
from tunesmith.fewshot.schemes import Given
from tunesmith.models.quantized import release
from tunesmith.recipe.loading import Checked
from tunesmith.runs.continuing import Earlier
from tunesmith.runs.family import Family
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.preflight import Preflight, check
from tunesmith.training.processes import ALONE, Processes
from tunesmith.training.starting import show
from tunesmith.training.trial import Trial


@dataclass
class Fold:
    """A training without some of the rows, which it answers.

    Args:
        family: with the rows that train.
        trial: its delta and head.
        facts: found by the probing step.
        held: numbers of the rows left out.
    """

    family: Family
    trial: Trial
    facts: Preflight
    held: np.ndarray[Any, np.dtype[np.int64]]


@dataclass
class Prepared:
    """A candidate that is ready to train.

    Args:
        checked: its recipe.
        trial: its delta, head and rows.
        facts: found by the probing step.
        family: with the rows that it trains on.
        plain: the same without the recipe's scheme, or the recipe without its ensemble, to measure what that gains.
        folds: the same on parts of the rows, for a combination that learns from out-of-fold answers.
        vote: how much its maker trusts it beside others; None for all alike.
    """

    checked: Checked
    trial: Trial
    facts: Preflight
    family: Family
    plain: Trial | None = None
    folds: list[Fold] = field(default_factory=list)
    vote: float | None = None

    @property
    def trials(self) -> list[Trial]:
        """Everything that trains in its pass."""
        return [self.trial, *([] if self.plain is None else [self.plain]), *(fold.trial for fold in self.folds)]

    @property
    def probed(self) -> list[tuple[Trial, Preflight]]:
        """Everything that trains, each with what its probing step found."""
        folds = {fold.trial: fold.facts for fold in self.folds}
        return [(trial, folds.get(trial, self.facts)) for trial in self.trials]


@dataclass(frozen=True)
class Start:
    """How a trial begins, where its recipe alone does not say it.

    Args:
        seed: of the weights that it begins with; its recipe's when None.
        trial: makes it of its arguments.
    """

    seed: int | None = None
    trial: Callable[[dict[str, Any]], Trial] = lambda facts: Trial(**facts)


def prepare(
    checked: Checked,
    family: Family,
    earlier: Earlier | None,
    processes: Processes = ALONE,
) -> list[Prepared]:
    """Attach every candidate's delta, or the recipe's own, and prove that a step would train it.

    Args:
        checked: the recipe.
        family: its model and data, and how states are scored.
        earlier: run to go on from, or None.
        processes: that train together; the first one scores states for all.
    Returns:
        Each candidate, in their order.
    """
    candidates = checked.candidates or (checked,)
    still = [number for number, candidate in enumerate(checked.candidates) if not candidate.method.trains]
    if still:
        raise RecipeError(
            f"candidates[{still[0]}]: method {candidates[still[0]].method.name} trains nothing, so it is no candidate "
            "of a training. Leave it out; the untuned model is among the baselines."
        )
    names = [f"trial-{number:03d}" for number in range(len(candidates))] if checked.candidates else ["default"]
    prepared = [_candidate(checked, number, name, family, (earlier, processes)) for number, name in enumerate(names)]
    release(family.session.backbone.model)
    return prepared


def _candidate(
    common: Checked, number: int, name: str, family: Family, given: tuple[Earlier | None, Processes]
) -> Prepared:
    checked = common.candidates[number] if common.candidates else common
    try:
        found = Prepared(checked, *prepare_one(checked, name, family, *given), family)
        if checked.scheme is not None and checked.scheme.compare:
            plain = replace(checked, scheme=None)
            found.plain, _ = prepare_one(plain, f"{name}-plain", family, *given)
    except TunesmithError as error:
        if common.candidates:
            error.args = (f"candidates[{number}]: {error}",)
        raise
    return found


def prepare_one(
    checked: Checked,
    name: str,
    family: Family,
    earlier: Earlier | None,
    processes: Processes = ALONE,
    begin: Start | None = None,
) -> tuple[Trial, Preflight]:
    """Attach one recipe's delta, and prove that a step would train it.

    Args:
        checked: the recipe.
        name: of the delta.
        family: its model and data.
        earlier: run to go on from, or None.
        processes: that train together; the first one scores states for all.
        begin: how it begins, where the recipe alone does not say it.
    Returns:
        The trial, and what the probing step found.
    Raises:
        TunesmithError: it cannot be attached, or would train nothing.
    """
    recipe, session, split = checked.recipe, family.session, family.corpus.splits["train"]
    backbone, begin = session.backbone, begin or Start()
    seed_everything(derived(recipe.seed if begin.seed is None else begin.seed, "weights"))
    delta = earlier.attach(session, name) if earlier else checked.method.attach(backbone.seams, name)
    if checked.method.data_driven and earlier is None:
        seed = derived(recipe.seed, "initialise")
        checked.method.initialise(delta, lambda: show(backbone, delta, split, recipe.training.batch_size, seed))
    head = session.task.head(backbone.width, len(family.corpus.label_names)).to(backbone.device)
    if recipe.model.dtype == "float64":
        head.double()
    family.start(head, checked, earlier)
    tuned = Tuned(backbone, session.task, head, delta)
    facts = {
        "tuned": tuned,
        "split": family.training_rows(checked),
        "settings": recipe.training,
        "seed": recipe.seed,
        "validate": lambda: processes.of_first(lambda: family.validate(tuned)),
        "best": family.best(recipe.training.best),
        "method": checked.method,
    }
    given = Given(family.corpus.taught_names, checked.folder, family.corpus.unlabelled)
    trial = begin.trial(facts) if checked.scheme is None else checked.scheme.trial(given, facts)
    found = check(trial)
    seed_everything(derived(recipe.seed, "training"))
    return trial, found
