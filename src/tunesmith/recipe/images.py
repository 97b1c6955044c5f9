"""What a recipe about images must not ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.recipe.schema import Recipe

_OF_TEXTS = {
    "data": ("near_copies", "label_descriptions", "max_tokens"),
    "training": ("label_rows", "token_dropout"),
}


def across_images(recipe: Recipe, task: Any, listed: Mapping[str, Sequence[Any]]) -> list[str]:
    """Refuse what changes or reads texts where the rows are images.

    Args:
        recipe: all keys.
        task: the recipe's.
        listed: cleaning steps and augmentations, by key below `data`.
    Returns:
        Mistakes, each with its key.
    """
    if task.reads != "images":
        return []
    given = [
        f"{section}.{key}"
        for section, keys in _OF_TEXTS.items()
        for key in keys
        if getattr(getattr(recipe, section), key) != type(getattr(recipe, section)).model_fields[key].default
    ]
    given += [
        f"data.{key}" for key, some in listed.items() if any(getattr(one, "of", "text") == "text" for one in some)
    ]
    if recipe.prompt != type(recipe.prompt)():
        given.append("prompt")
    found = [
        f"{key}: it is about texts, and the rows of the task '{task.name}' are images. Leave it out." for key in given
    ]
    if recipe.training.cache == "disk":
        found.append(
            "training.cache=disk: what is kept there is found again by a row's tokens, and those of an image are only "
            "numbers. Take auto, memory or off."
        )
    if task.reads_label_text:
        found.append("task.head_start: labels' texts are nothing to a model of images. Choose prototypes or random.")
    if "zero-shot" in (recipe.evaluation.baselines or ()):
        found.append(
            "evaluation.baselines: zero-shot reads labels' texts, and a model of images reads none. Leave it out."
        )
    return found
