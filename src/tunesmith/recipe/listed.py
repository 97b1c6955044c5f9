"""Components that a recipe gives as a list, such as cleaning steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.registry import components
from tunesmith.recipe.schema import DataSettings

LISTED = {"cleaning": "cleaning", "augmentation": "augmentations"}  # keys below `data`, and the kinds they list

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
    kind = LISTED[key]
    found = [build(kind, place, dict(one), problems) for place, one in places]
    names = [one.get("name") for _, one in places]
    problems += [
        f"{place}: {one['name']} stands twice in the list; keep one."
        for number, (place, one) in enumerate(places)
        if one.get("name") in names[:number] and one.get("name") in components(kind)
    ]
    return [one for one in found if one is not None]


def with_places(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Name the folders of runs and models that listed components name so that they mean the same anywhere.

    Args:
        values: of the recipe, as written.
        folder: the recipe's; what is not beside it is looked for in the current folder.
    Returns:
        The values, with absolute paths where there is such a folder.
    """
    data = values.get("data")
    if not isinstance(data, Mapping):
        return dict(values)
    lists = {key: data[key] for key in LISTED if isinstance(data.get(key), list)}
    found = {key: [_placed(one, LISTED[key], folder) for one in some] for key, some in lists.items()}
    return {**values, "data": {**data, **found}}


def _placed(one: Any, kind: str, folder: Path) -> Any:
    name = one.get("name") if isinstance(one, Mapping) else None
    known = components(kind).get(name) if isinstance(name, str) else None
    named = [] if known is None else [key for key in known.folders if isinstance(one.get(key), str)]
    return {**one, **{key: _folder(one[key], folder) for key in named}} if named else one


def _folder(named: str, folder: Path) -> str:
    """Find the folder of a run or a model; what is none may be a name of the hub, or be missed when it is read."""
    for place in (folder / Path(named).expanduser(), Path(named).expanduser()):
        if named.strip() and any((place / file).is_file() for file in ("recipe.yaml", "config.json")):
            return str(place.absolute())
    return named


def across_lists(listed: Mapping[str, Sequence[Any]], data: DataSettings, task: Any) -> list[str]:
    """Refuse components that the task's rows have nothing for, and splits that contradict each other.

    Args:
        listed: components by key.
        data: the recipe's data settings.
        task: of the recipe.
    Returns:
        What is wrong, a sentence each.
    """
    augmenting = listed["augmentation"] and task.family != "labelling"
    return [
        *_of_splits(data, task),
        *([f"data.augmentation: it is for tasks with a head for labels, not for '{task.name}'."] if augmenting else []),
        *(
            f"data.augmentation: {step.name} is for {step.of}, and task '{task.name}' reads {task.reads}. Leave it out."
            for step in listed["augmentation"]
            if step.of not in ("text", task.reads)
        ),
        *(
            f"data.augmentation: {step.name} needs {step.lacks}."
            for step in listed["augmentation"]
            if getattr(step, "lacks", "")
        ),
        *(
            f"data.augmentation: {step.name} writes forms of the texts as they stand in the data; put it first."
            for step in listed["augmentation"][1:]
            if getattr(step, "ahead", False)
        ),
        *(
            f"data.cleaning: {step.name} is for tasks with a head for labels, not for '{task.name}'. Leave it out."
            for step in listed["cleaning"]
            if getattr(step, "needs_features", False) and task.family != "labelling"
        ),
    ]


def _of_splits(data: DataSettings, task: Any) -> list[str]:
    """Refuse ways of splitting that contradict each other, or that the task does not know."""
    found = []
    given = [key for key in ("group", "time", "folds") if getattr(data, key) is not None]
    if given and task.family == "generating":
        found.append(f"data.{given[0]}: the task '{task.name}' splits its rows at random. Leave it out.")
    if data.time is not None:
        found += [f"data.{key}: data.time holds the latest rows out, so nothing is drawn. Leave one of the two out."
                  for key in ("group", "folds", "near_copies") if getattr(data, key) is not None]  # fmt: skip
    shares = [name for name in ("validation", "test") if isinstance(getattr(data, name), float)]
    if given and not shares and data.folds is None:
        found.append(f"data.{given[0]}: validation and test are files, so nothing is held out of train. Leave it out.")
    if data.folds is not None and isinstance(data.validation, str):
        found.append("data.folds: validation is a file already. Leave one of the two out.")
    if data.folds is not None and data.fold >= data.folds * data.fold_repeats:
        found.append(f"data.fold: {data.fold} is not among the folds 0 to {data.folds * data.fold_repeats - 1}.")
    if data.folds is None and data.fold:
        found.append("data.fold: it chooses one of data.folds, which is not given.")
    if data.folds is None and data.fold_repeats > 1:
        found.append("data.fold_repeats: it draws data.folds anew, which is not given.")
    return found
