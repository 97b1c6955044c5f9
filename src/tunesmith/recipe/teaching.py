"""What a teacher, a run whose answers are learned, must agree on with the rest of a recipe."""

from __future__ import annotations

from typing import Any

from tunesmith.recipe.schema import Recipe

_OWN = ("teacher_weight", "teacher_temperature")


def across_teacher(recipe: Recipe, task: Any) -> list[str]:
    """Refuse a teacher that nothing would learn from, and settings of one that is not there.

    Args:
        recipe: each key checked.
        task: that is trained.
    Returns:
        Sentences about what does not go together.
    """
    data, found = recipe.data, list[str]()
    if data.teacher is None:
        given = [key for key in _OWN if getattr(data, key) != type(data).model_fields[key].default]
        return [f"data.{key}: there is no data.teacher that it is about. Name a run, or leave it out." for key in given]
    if task.family == "generating":
        return [f"data.teacher: it answers with labels, and the task '{task.name}' has none. Leave it out."]
    if data.soft_labels is not None:
        found.append("data.teacher: data.soft_labels says already what rows learn. Leave one of the two out.")
    if getattr(task, "reject", None) is not None:
        found.append("data.teacher: with task.reject rows may belong to no label, as no teacher can say. Leave it out.")
    for key in ("semi_supervised", "dual_learning"):
        if getattr(recipe, key) is not None:
            found.append(f"data.teacher: {key} learns one label per row. Leave one of the two out.")
    hard = [loss.name for loss in getattr(task, "loss_components", []) if not loss.learns_soft]
    if hard:
        found.append(f"data.teacher: {', '.join(hard)} cannot learn probabilities. Take task.losses=[cross-entropy].")
    return found
