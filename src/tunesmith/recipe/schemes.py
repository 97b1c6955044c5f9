"""Checks of what is learned from besides the labelled rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.recipe.schema import Recipe


def across_schemes(recipe: Recipe, parts: Mapping[str, Any]) -> list[str]:
    """Refuse schemes without rows to learn from, and rows that no scheme reads.

    Args:
        recipe: whose keys are each right.
        parts: the components that it names, by key.
    Returns:
        Sentences.
    """
    chosen = {key: parts[key] for key in ("semi_supervised", "dual_learning") if key in parts}
    if len(chosen) > 1:
        return ["dual_learning: a recipe has one scheme, and semi_supervised is given too. Leave one of the two out."]
    found, unlabelled = list[str](), recipe.data.unlabelled
    for key, scheme in chosen.items():
        task, name = parts["task"], type(scheme).name
        if task.family == "prompting":
            found.append(
                f"{key}: '{name}' needs a head of its own on the model's features, and '{task.name}' reads words. "
                "Choose text-classification or image-classification; prompts learn from rows without labels by "
                "`tunesmith pet`."
            )
        elif task.family != "labelling":
            found.append(
                f"{key}: '{name}' is for tasks with a label per row, and '{task.name}' has none. Leave it out."
            )
        if scheme.reads_unlabelled == "always" and unlabelled is None:
            found.append(f"data.unlabelled: {key} '{name}' learns from rows without labels. Name a file of them.")
        if scheme.reads_unlabelled == "never" and unlabelled is not None:
            found.append(f"data.unlabelled: {key} '{name}' does not read it. Leave one of the two out.")
    if unlabelled is not None and not chosen:
        found.append(
            "data.unlabelled: nothing reads it. Set semi_supervised, for example semi_supervised=self-training, or "
            "leave it out."
        )
    found.extend(_across_rest(recipe, parts, chosen))
    return found


def trains_nothing(recipe: Recipe, method: Any) -> str:
    """Say that a method trains nothing, or may choose one that does not.

    Args:
        recipe: that names it.
        method: built from it.
    Returns:
        A clause; empty where it trains.
    """
    name = recipe.method["name"]
    if method.chooses:
        return f"method '{name}' may choose one that trains nothing"
    return "" if method.trains else f"method '{name}' trains nothing"


def across_peers(scheme: Any, candidates: Sequence[Any]) -> list[str]:
    """Refuse candidates that are to learn from each other where there are none.

    Args:
        scheme: of the recipe, or None.
        candidates: of the recipe.
    Returns:
        Sentences.
    """
    if not getattr(scheme, "together", False) or len(candidates) > 1:
        return []
    return [
        f"{type(scheme).section}.together: candidates label the rows together, and the recipe has {len(candidates)}. "
        "Give two or more, for example candidates=[{seed: 0}, {seed: 1}], or leave it out."
    ]


def _across_rest(recipe: Recipe, parts: Mapping[str, Any], chosen: Mapping[str, Any]) -> list[str]:
    """Refuse what a scheme cannot go together with."""
    found = list[str]()
    for key in chosen:
        still = trains_nothing(recipe, parts["method"])
        if still:
            found.append(f"{key}: {still}. Choose another method, or leave it out.")
        if recipe.data.soft_labels is not None:
            found.append(f"data.soft_labels: {key} learns one label per row. Leave one of the two out.")
        single = chosen[key].compare or recipe.ensemble is not None or parts["combine"].parts
        if recipe.combine["name"] != "best" and single:
            found.append(
                f"combine: {key} measures the gain of one candidate, so combine=best goes with it. With "
                f"{key}.compare=false candidates may be averaged too."
            )
    return found
