"""From a checked recipe to trials that are ready to train, each proven to do something."""

from __future__ import annotations

import torch

from tunesmith.core.errors import TunesmithError
from tunesmith.core.registry import find
from tunesmith.core.seeds import derived, seed_everything
from tunesmith.evaluation.predictions import Predictions
from tunesmith.models.quantized import release
from tunesmith.recipe.loading import Checked
from tunesmith.runs.comparing import Frozen, Judge
from tunesmith.runs.continuing import Earlier
from tunesmith.runs.session import Session
from tunesmith.tasks.running import extract_features
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.corpus import Corpus, Split
from tunesmith.training.preflight import Preflight, check
from tunesmith.training.starting import show
from tunesmith.training.trial import Trial


def prepare(
    checked: Checked,
    session: Session,
    corpus: Corpus,
    frozen: Frozen,
    judge: Judge,
    earlier: Earlier | None,
) -> list[tuple[Checked, Trial, Preflight]]:
    """Attach every candidate's delta, or the recipe's own, and prove that a step would train it.

    Args:
        checked: the recipe.
        session: its model.
        corpus: its data.
        frozen: features of the untuned model.
        judge: how states are scored.
        earlier: run to go on from, or None.
    Returns:
        Each candidate with its trial and what was found.
    """
    candidates = checked.candidates or (checked,)
    names = [f"trial-{number:03d}" for number in range(len(candidates))] if checked.candidates else ["default"]
    prepared = []
    for number, (candidate, name) in enumerate(zip(candidates, names, strict=True)):
        try:
            prepared.append((candidate, *_one(candidate, name, session, corpus, (frozen, judge, earlier))))
        except TunesmithError as error:
            if checked.candidates:
                error.args = (f"candidates[{number}]: {error}",)
            raise
    release(session.backbone.model)
    return prepared


def _one(
    checked: Checked, name: str, session: Session, corpus: Corpus, given: tuple[Frozen, Judge, Earlier | None]
) -> tuple[Trial, Preflight]:
    recipe, backbone, split = checked.recipe, session.backbone, corpus.splits["train"]
    frozen, judge, earlier = given
    seed_everything(derived(recipe.seed, "weights"))
    delta = earlier.attach(session, name) if earlier else checked.method.attach(backbone.seams, name)
    if checked.method.data_driven and earlier is None:
        seed = derived(recipe.seed, "initialise")
        checked.method.initialise(delta, lambda: show(backbone, delta, split, recipe.training.batch_size, seed))
    head = session.task.head(backbone.width, len(corpus.label_names)).to(backbone.device)
    if recipe.model.dtype == "float64":
        head.double()
    if session.task.starts_from_features:
        labels = torch.from_numpy(split.labels)
        session.task.start(head, _first_features(checked, session, split, frozen, earlier), labels.to(backbone.device))
    if earlier is not None:
        earlier.fill_head(head, corpus.label_names)
    tuned = Tuned(backbone, session.task, head, delta)
    trial = Trial(
        tuned,
        split,
        recipe.training,
        recipe.seed,
        validate=lambda: _validate(tuned, corpus.splits["validation"], judge),
        best=_best(recipe.training.best, judge),
        method=checked.method,
    )
    facts = check(trial)
    seed_everything(derived(recipe.seed, "training"))
    return trial, facts


def _first_features(
    checked: Checked, session: Session, split: Split, frozen: Frozen, earlier: Earlier | None
) -> torch.Tensor:
    """Return what the head will read at the first step: a fresh delta may already change it."""
    if checked.method.neutral and earlier is None:
        return frozen.features["train"].to(session.backbone.device)
    return extract_features(session.backbone, session.task, split.tokens).to(session.backbone.device)


def _best(wanted: str, judge: Judge) -> tuple[str, bool]:
    name = judge.metrics[0].name if wanted == "auto" else wanted
    if name in ("last", "validation loss"):
        return name, False
    return name, find("metrics", name).higher_is_better


def _validate(tuned: Tuned, split: Split, judge: Judge) -> dict[str, float]:
    found = predict(tuned, split)
    sample = found.sample()
    scores = {metric.name: metric.compute(sample) for metric in judge.metrics}
    return {"validation loss": float(found.row_loss.mean()), **scores}


def predict(tuned: Tuned, split: Split) -> Predictions:
    """Answer every row of a split.

    Args:
        tuned: the model.
        split: the rows.
    Returns:
        The predictions.
    """
    return Predictions(tuned.probabilities(split.tokens).numpy(), split.labels)
