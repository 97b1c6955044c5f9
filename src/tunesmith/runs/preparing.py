"""From a checked recipe to trials that are ready to train, each proven to do something."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
class Prepared:
    """A candidate that is ready to train.

    Args:
        checked: its recipe.
        trial: its delta, head and rows.
        facts: found by the probing step.
        plain: the same without the recipe's scheme, to measure what the scheme gains.
    """

    checked: Checked
    trial: Trial
    facts: Preflight
    plain: Trial | None = None


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
    prepared: list[Prepared] = []
    for number, (candidate, name) in enumerate(zip(candidates, names, strict=True)):
        try:
            prepared.append(Prepared(candidate, *prepare_one(candidate, name, family, earlier, processes)))
            if candidate.scheme is not None and candidate.scheme.compare:
                plain = replace(candidate, scheme=None)
                prepared[-1].plain, _ = prepare_one(plain, f"{name}-plain", family, earlier, processes)
        except TunesmithError as error:
            if checked.candidates:
                error.args = (f"candidates[{number}]: {error}",)
            raise
    release(family.session.backbone.model)
    return prepared


def prepare_one(
    checked: Checked, name: str, family: Family, earlier: Earlier | None, processes: Processes = ALONE
) -> tuple[Trial, Preflight]:
    """Attach one recipe's delta, and prove that a step would train it.

    Args:
        checked: the recipe.
        name: of the delta.
        family: its model and data.
        earlier: run to go on from, or None.
        processes: that train together; the first one scores states for all.
    Returns:
        The trial, and what the probing step found.
    Raises:
        TunesmithError: it cannot be attached, or would train nothing.
    """
    recipe, session, split = checked.recipe, family.session, family.corpus.splits["train"]
    backbone = session.backbone
    seed_everything(derived(recipe.seed, "weights"))
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
    given = Given(family.corpus.label_names, checked.folder, family.corpus.unlabelled)
    trial = Trial(**facts) if checked.scheme is None else checked.scheme.trial(given, facts)
    found = check(trial)
    seed_everything(derived(recipe.seed, "training"))
    return trial, found
