"""Checks of what tells classes without a training row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.recipe.schema import Recipe


def across_unseen(recipe: Recipe, parts: Mapping[str, Any]) -> list[str]:
    """Refuse attributes without a table or rows, rows that nothing reads, and what attributes do not go with.

    Args:
        recipe: whose keys are each right.
        parts: the components that it names, by key.
    Returns:
        Sentences.
    """
    way, unseen, task = parts.get("attributes"), recipe.data.unseen, parts["task"]
    if way is None:
        return [] if unseen is None else [
            "data.unseen: nothing reads it. Set attributes, for example attributes.name=model and "
            "attributes.table=FILE, or leave it out."
        ]  # fmt: skip
    found = []
    if not way.table:
        found.append("attributes.table: required and not given: the file with the attributes of all classes.")
    if unseen is None:
        found.append(
            "data.unseen: attributes are measured on classes without training rows. Name a file of their rows."
        )
    if task.family != "labelling":
        found.append(f"attributes: they go with tasks of one label per row, not with '{task.name}'. Leave it out.")
    if recipe.combine["name"] != "best":
        found.append("attributes: they are read off one model; only combine=best goes with them.")
    return found
