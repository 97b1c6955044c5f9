"""What a recipe about rows out of scope must bring together."""

from __future__ import annotations

from typing import Any

from tunesmith.core.registry import components
from tunesmith.recipe.schema import Recipe


def across_rejecting(recipe: Recipe, task: Any) -> list[str]:
    """Refuse names and metrics of rows out of scope where none is rejected.

    Args:
        recipe: all keys.
        task: the recipe's.
    Returns:
        Mistakes, each with its key.
    """
    if getattr(task, "reject", None) is not None:
        return []
    found = list[str]()
    if recipe.data.out_of_scope is not None:
        found.append(
            f"data.out_of_scope: the task '{task.name}' rejects no rows. Add task.reject: {{}} where it can, or leave "
            "it out."
        )
    names = {name for name, metric in components("metrics").items() if metric.of_rejection}
    for name in names.intersection(recipe.evaluation.metrics or []):
        found.append(f"evaluation.metrics: {name} is of rejected rows. Add task.reject: {{}}, or leave it out.")
    return found
