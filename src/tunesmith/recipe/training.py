"""What the keys of `training` must agree on among themselves."""

from __future__ import annotations

from typing import Any

from tunesmith.core.registry import find
from tunesmith.recipe.schema import Recipe, TrainingSettings

# Training keys that all deltas of a pass share, as they share the model, its memory and the rows that go through it.
OF_A_PASS = (
    "dropout", "frozen_dropout", "best", "precision", "memory_limit", "tokens_per_pass", "cache", "cache_type",
    "cache_limit", "shard_base",
)  # fmt: skip


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
    averaging = [name for name in names if find("regularizers", name).averages or find("regularizers", name).gates]
    averaging += [training.optimizer["name"]] if averages else []
    if len(averaging) > 1:
        found.append(
            f"training.regularizers: {' and '.join(averaging)} would each answer with parameters of its own. Keep one."
        )
    twice = [name for number, name in enumerate(names) if name in names[:number]]
    if twice:
        found.append(f"training.regularizers: {twice[0]} stands there twice. Keep one.")
    return [
        *found,
        *_across_off(training),
        *_across_zeros(training, averaging),
        *_across_best(recipe),
        *_across_labels(training, task),
        *_across_weights(recipe, task),
        *_across_synthetic(recipe, task),
        *_across_augmentation(recipe, task),
        *_across_sharding(recipe),
    ]


def _across_off(training: TrainingSettings) -> list[str]:
    """Refuse settings of what is switched off."""
    plain, found = TrainingSettings(), list[str]()
    if training.guard.spike is None and training.guard.window != plain.guard.window:
        found.append(
            "training.guard.window: it says how many steps training.guard.spike looks back on, and that is empty. Set "
            "spike, or leave window out."
        )
    unread = {"off": ("cache_type", "cache_limit"), "disk": ("cache_limit",)}.get(training.cache, ())
    return found + [
        f"training.{key}: nothing reads it with training.cache={training.cache}. Leave one of the two out."
        for key in unread
        if getattr(training, key) != getattr(plain, key)
    ]


def _across_zeros(training: TrainingSettings, averaging: list[str]) -> list[str]:
    """Refuse means of states whose zeros stand in different places: few of them would be left in the saved delta."""
    names = [one["name"] for one in training.regularizers]
    thinning = [name for name in names if find("regularizers", name).sparsifies]
    means = [name for name in averaging if name not in thinning]
    means += ["training.average_best"] if training.average_best else []
    if not (thinning and means):
        return []
    return [
        f"training.regularizers: {thinning[0]} sets numbers to zero, and {means[0]} averages states whose zeros stand "
        "in different places, so few would be left. Leave one of the two out."
    ]


def _across_sharding(recipe: Recipe) -> list[str]:
    """Refuse parts of blocks beside weights in fewer bits: these are made of whole ones, or kept whole beside them."""
    if not recipe.training.shard_base:
        return []
    narrow, bits = recipe.training.precision, recipe.model.quantization
    keys = [f"training.precision={narrow}"] if narrow in ("int8", "float8") else []
    keys += [f"model.quantization={bits}"] if bits is not None else []
    return [f"training.shard_base: {key} keeps whole weights in fewer bits. Leave one of the two out." for key in keys]


def _across_synthetic(recipe: Recipe, task: Any) -> list[str]:
    """Refuse rows made of others where nothing could learn them, or where classes are evened out twice."""
    written = recipe.training.synthetic
    if written is None:
        return []
    how = find("synthetic", written["name"])
    found = _of_made_rows("training.synthetic", how, how.mixes_labels, task)
    if recipe.semi_supervised is not None or recipe.dual_learning is not None:
        found.append("training.synthetic: semi_supervised and dual_learning make their own steps. Leave one out.")
    if how.balances and recipe.training.balance != "none":
        found.append(f"training.synthetic: {how.name} evens classes out, as training.balance does. Leave one out.")
    if not how.balances and recipe.training.class_weights is not None:
        found.append("training.class_weights: a mixed row has two labels, so no one weight. Leave one of both out.")
    return found


def _of_made_rows(key: str, how: Any, mixes_labels: bool, task: Any) -> list[str]:
    """Refuse rows made of others where the task's losses or its head cannot learn them."""
    losses = getattr(task, "loss_components", [])
    hard = [loss.name for loss in losses if (mixes_labels and not loss.learns_soft) or loss.copies > 1]
    if losses and not hard and not getattr(task, "compares_rows", False):
        return []
    what = f"the loss {hard[0]}" if hard else "a head that keeps rows" if losses else f"the task '{task.name}'"
    return [
        f"{key}: {what} cannot learn what {how.name} makes. Take the loss cross-entropy and a head with class vectors, "
        "or leave it out."
    ]


def _across_augmentation(recipe: Recipe, task: Any) -> list[str]:
    """Refuse images with parts of others where no loss could learn that their labels are shared."""
    steps = [find("augmentations", one["name"]) for one in recipe.data.augmentation]
    mixing = [step for step in steps if getattr(step, "mixes", False)]
    if not mixing or task.family != "labelling" or task.reads != "images":  # refused elsewhere
        return []
    name = mixing[0].name
    others = {
        "training.class_weights": recipe.training.class_weights,
        "semi_supervised": recipe.semi_supervised,
        "dual_learning": recipe.dual_learning,
        "task.reject": getattr(task, "reject", None),
    }
    return _of_made_rows("data.augmentation", mixing[0], True, task) + [
        f"{key}: a row that {name} (data.augmentation) makes has two labels, and this is for rows of one. Leave one of "
        "both out."
        for key, value in others.items()
        if value is not None
    ]


def _across_weights(recipe: Recipe, task: Any) -> list[str]:
    """Refuse weights that no loss of the task would read."""
    losses = getattr(task, "loss_components", [])
    unweighted = [loss.name for loss in losses if not loss.weighable]
    if losses and not unweighted:
        return []
    what = f"the loss {unweighted[0]} has" if unweighted else f"the task '{task.name}' has"
    asked = {"training.class_weights": recipe.training.class_weights, "data.row_weights": recipe.data.row_weights}
    keys = [key for key, value in asked.items() if value is not None and task.family != "generating"]
    keys += ["data.row_weights"] if task.family == "generating" and recipe.data.row_weights is not None else []
    lighter = [one for one in recipe.data.cleaning if one["name"] == "label-errors" and one.get("do") == "weight"]
    keys += ["data.cleaning: label-errors.do=weight"] if lighter else []
    return [f"{key}: {what} no rows that could weigh more. Leave it out." for key in keys]


def _across_best(recipe: Recipe) -> list[str]:
    """Refuse patience that no epoch tries, a mean of one state, and one that nothing compares with the best epoch."""
    training, found = recipe.training, list[str]()
    if training.patience is not None and training.best == "last":
        found.append(
            "training.patience: with training.best=last every epoch is the best so far, so training never stops early. "
            "Leave one of the two out."
        )
    if not training.average_best:
        return found
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
    if training.label_smoothing and losses and not any(loss.smooths for loss in losses):
        found.append(
            f"training.label_smoothing: the losses {', '.join(loss.name for loss in losses)} do not read it. Leave it "
            "out, or add cross-entropy."
        )
    return found
