"""What a recipe about rows with labels must bring together."""

from __future__ import annotations

from typing import Any

from tunesmith.core.registry import components
from tunesmith.recipe.schema import Recipe


def across_labels(recipe: Recipe, task: Any) -> list[str]:
    """Refuse names and metrics of rows out of scope where none is rejected, and choices without validation rows.

    Args:
        recipe: all keys.
        task: the recipe's.
    Returns:
        Mistakes, each with its key.
    """
    held_out = recipe.data.validation is not None or recipe.data.folds is not None
    found = [] if held_out else _without_validation(recipe, task)
    if recipe.data.also_train and (task.family == "generating" or task.reads == "images"):
        found.append(f"data.also_train: rows of '{task.name}' come from one file. Put them together in it.")
    if task.opens != "body":
        unread = ("rows_per_label", "label_rows", "token_dropout")
        default = type(recipe.training)()
        found += [
            f"training.{key}: the task '{task.name}' has no labels. Leave it out."
            for key in unread
            if getattr(recipe.training, key) != getattr(default, key)
        ]
    if task.family == "prompting":
        found += [*_of_prompts(task), *_of_words(recipe, task)]
    if getattr(task, "reject", None) is not None:
        return found
    if recipe.data.out_of_scope is not None:
        found.append(
            f"data.out_of_scope: the task '{task.name}' rejects no rows. Add task.reject: {{}} where it can, or leave "
            "it out."
        )
    names = {name for name, metric in components("metrics").items() if metric.of_rejection}
    for name in names.intersection(recipe.evaluation.metrics or []):
        found.append(f"evaluation.metrics: {name} is of rejected rows. Add task.reject: {{}}, or leave it out.")
    return found


def _of_prompts(task: Any) -> list[str]:
    """What only tasks with a head on features read must not be asked of words."""
    default, found = type(task)(), list[str]()
    for key in ("head_kind", "head_start", "head_scale", "head_dropout"):
        if getattr(task, key) != getattr(default, key):
            found.append(
                f"task.{key}: the task '{task.name}' reads labels off the model's answer (task.verbalizer), and has no "
                "such head. Leave it out, or choose text-classification."
            )
    if task.reject is not None:
        found.append(
            f"task.reject: the task '{task.name}' rejects no rows. Leave it out, or choose text-classification, with "
            "task.head_start=label-text where labels' names and descriptions shall tell them apart."
        )
    return found


def _of_words(recipe: Recipe, task: Any) -> list[str]:
    """Refuse settings of demonstrations where none is shown, and a rate of a head that does not train."""
    shown, found = recipe.prompt.demonstrations, list[str]()
    if not shown.count and not shown.examples:
        plain = type(shown)()
        found += [
            f"prompt.demonstrations.{key}: none is shown. Set prompt.demonstrations.count, or leave it out."
            for key in ("strategy", "separator", "balance", "template")
            if getattr(shown, key) != getattr(plain, key)
        ]
    if recipe.training.head_learning_rate is not None and not task.kind.trains:
        found.append(
            f"training.head_learning_rate: task.verbalizer={task.verbalizer} has nothing that trains. Leave it out, or "
            "choose a verbalizer that learns (tunesmith list verbalizers)."
        )
    return found


def _without_validation(recipe: Recipe, task: Any) -> list[str]:
    """What validation rows are for must not be asked without them."""
    asked = {
        f"the task '{task.name}' reads them": task.family == "generating",
        "data.test is empty too, so nothing could be scored": recipe.data.test is None,
        f"training.best={recipe.training.best} chooses by them": recipe.training.best not in ("auto", "last"),
        "training.schedule=plateau waits for them": recipe.training.schedule["name"] == "plateau",
        "training.patience waits for them": recipe.training.patience is not None,
        "candidates are chosen by them": bool(recipe.candidates) and recipe.combine["name"] == "best",
        "model.quantization is judged by them": recipe.model.quantization is not None,
        "task.reject chooses its threshold by them": getattr(task, "reject", None) is not None,
    }
    return [
        f"data.validation: there are no validation rows, and {why}. Give a file or a share, or leave that out."
        for why, wanted in asked.items()
        if wanted
    ]
