"""What the keys of `training` must agree on among themselves."""

from __future__ import annotations

from typing import Any

from tunesmith.core.registry import find
from tunesmith.recipe.schema import Recipe, TrainingSettings


def across_training(recipe: Recipe, task: Any) -> list[str]:
    """Check what one key of `training` alone cannot know.

    Args:
        recipe: each key checked.
        task: that is trained.
    Returns:
        Sentences about what does not go together.
    """
    found, training = [], recipe.training
    schedule, given = training.schedule["name"], training.model_fields_set
    averages = "optimizer" in given and find("optimizers", training.optimizer["name"]).averages
    if averages and schedule != "constant":
        found.append(
            f"training.schedule: {schedule} lets the learning rate fall, and the optimizer "
            f"{training.optimizer['name']} averages its steps instead. Set training.schedule=constant."
        )
    if "schedule" in given and "warmup_fraction" in given and find("schedules", schedule).rises:
        found.append(
            f"training.warmup_fraction: the schedule {schedule} rises by itself, for its own share of the steps "
            "(rising_fraction). Leave it out."
        )
    names = [one["name"] for one in training.regularizers]
    averaging = [name for name in names if find("regularizers", name).averages]
    averaging += [training.optimizer["name"]] if averages else []
    if len(averaging) > 1:
        found.append(
            f"training.regularizers: {' and '.join(averaging)} would each answer with an average of its own. Keep one."
        )
    twice = [name for number, name in enumerate(names) if name in names[:number]]
    if twice:
        found.append(f"training.regularizers: {twice[0]} stands there twice. Keep one.")
    return [*found, *_across_best(recipe), *_across_labels(training, task)]


def _across_best(recipe: Recipe) -> list[str]:
    """Refuse a mean of one state, and one that nothing compares with the best epoch."""
    training, found = recipe.training, []
    if not training.average_best:
        return []
    if training.keep_best == 1:
        found.append("training.average_best: one state has no mean. Set training.keep_best to 2 or more.")
    if training.best == "last" or (recipe.data.validation is None and recipe.data.folds is None):
        found.append(
            "training.average_best: the mean must be no worse than the best epoch on validation rows, and nothing is "
            "compared there (training.best=last, or data.validation empty). Leave it out, or let validation decide."
        )
    return found


def _across_labels(training: TrainingSettings, task: Any) -> list[str]:
    """Refuse settings about labels that the task or its losses would not read."""
    losses = getattr(task, "loss_components", [])
    found = [
        f"training.{key}: the task '{task.name}' has no labels to balance. Leave it out."
        for key, plain in (("balance", "none"), ("class_weights", None))
        if task.family == "generating" and getattr(training, key) != plain
    ]
    if training.balance != "none" and training.rows_per_label is not None:
        found.append("training.balance: training.rows_per_label orders the rows already; leave one of the two out.")
    unweighted = [loss.name for loss in losses if not loss.weighable]
    if training.class_weights is not None and not found and (unweighted or not losses):
        what = f"the loss {unweighted[0]} has" if unweighted else f"the task '{task.name}' has"
        found.append(f"training.class_weights: {what} no rows that could weigh more. Leave it out.")
    if training.label_smoothing and losses and not any(loss.smooths for loss in losses):
        found.append(
            f"training.label_smoothing: the losses {', '.join(loss.name for loss in losses)} do not read it. Leave it "
            "out, or add cross-entropy."
        )
    return found
