"""Components that a recipe gives as a list, such as cleaning steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tunesmith.core.registry import components

LISTED = ("cleaning",)  # keys below `data`; each lists components of the kind of that name

# Builds one component: kind, key, settings and name, where to note what is wrong.
Build = Callable[[str, str, dict[str, Any], list[str]], Any]


def build_lists(data: Any, build: Build, problems: list[str]) -> dict[str, list[Any]]:
    """Build the components of all lists; a bare name stands for a component without settings.

    Args:
        data: the recipe's `data`, as written.
        build: one component.
        problems: where to note what is wrong.
    Returns:
        Components by key.
    """
    return {key: _listed(key, data, build, problems) for key in LISTED}


def _listed(key: str, data: Any, build: Build, problems: list[str]) -> list[Any]:
    given = data.get(key) if isinstance(data, Mapping) else None
    if not isinstance(given, list):
        return []  # what else it may be, the schema refuses
    named = [{"name": one} if isinstance(one, str) else one for one in given]
    places = [(f"data.{key}[{number}]", one) for number, one in enumerate(named) if isinstance(one, Mapping)]
    found = [build(key, place, dict(one), problems) for place, one in places]
    names = [one.get("name") for _, one in places]
    problems += [
        f"{place}: {one['name']} stands twice in the list; keep one."
        for number, (place, one) in enumerate(places)
        if one.get("name") in names[:number] and one.get("name") in components(key)
    ]
    return [one for one in found if one is not None]


def across_lists(listed: Mapping[str, Sequence[Any]], task: Any) -> list[str]:
    """Refuse components that the task's rows have nothing for.

    Args:
        listed: components by key.
        task: of the recipe.
    Returns:
        What is wrong, a sentence each.
    """
    return [
        f"data.cleaning: {step.name} compares labels, and the task '{task.name}' has none. Leave it out."
        for step in listed["cleaning"]
        if getattr(step, "needs_features", False) and task.opens != "body"
    ]
