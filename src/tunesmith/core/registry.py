"""Components find themselves: a kind of component is a folder, a component is a file in it.

`register` marks the class in the file; `find` and `names` list the folder and the entry points of
installed packages. There is no list to edit when a component is added.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from typing import Any, TypeVar

from tunesmith.core.errors import RecipeError, unknown

# A kind of component and the folder its files live in, or several. Entry-point groups: the folders' dotted names.
KINDS: dict[str, str | tuple[str, ...]] = {
    "methods": "tunesmith.methods",
    "tasks": "tunesmith.tasks",
    "metrics": "tunesmith.evaluation.metrics",
    "baselines": "tunesmith.evaluation.baselines",
    "learners": "tunesmith.fewshot.learners",
    "models": "tunesmith.models.embedded",
    "readers": "tunesmith.data.readers",
    "formats": "tunesmith.data.formats",
    "cleaning": "tunesmith.data.cleaning",
    "augmentations": ("tunesmith.data.augmentations", "tunesmith.runs.augmentations"),
    "chats": "tunesmith.prompts.chats",
    "heads": ("tunesmith.tasks.heads", "tunesmith.fewshot.heads"),
    "ways": "tunesmith.fewshot.ways",
    "choosers": "tunesmith.fewshot.choosers",
    "losses": ("tunesmith.training.losses", "tunesmith.fewshot.losses"),
    "optimizers": "tunesmith.training.optimizers",
    "schedules": "tunesmith.training.schedules",
    "regularizers": "tunesmith.training.regularizers",
    "synthetic": "tunesmith.training.synthetic",
    "trackers": "tunesmith.training.trackers",
    "strategies": "tunesmith.search.strategies",
    "pools": "tunesmith.search.pools",
    "edits": "tunesmith.search.edits",
    "proposals": "tunesmith.search.proposals",
    "starts": "tunesmith.search.starts",
    "adjustments": "tunesmith.search.adjustments",
    "verbalizers": "tunesmith.tasks.verbalizers",
    "demonstrations": "tunesmith.prompts.demonstrations",
    "semi_supervised": "tunesmith.fewshot.semi_supervised",
    "dual_learning": "tunesmith.fewshot.dual_learning",
    "attributes": "tunesmith.fewshot.attributes",
    "measurements": "tunesmith.fewshot.measurements",
    "ensembles": "tunesmith.ensembles.making",
    "combinations": "tunesmith.ensembles.combining",
}

_registered: dict[str, dict[str, type[Any]]] = {kind: {} for kind in KINDS}

Class = TypeVar("Class", bound=type[Any])


def register(kind: str) -> Callable[[Class], Class]:
    """Mark the class of a file as the component of that file; its class attribute `name` is its name.

    Args:
        kind: one of the keys of KINDS.
    Returns:
        A decorator that returns the class unchanged.
    Raises:
        RecipeError: by the decorator, where another class has the name.
    """

    def mark(component: Class) -> Class:
        taken = _registered[kind].setdefault(component.name, component)
        if (taken.__module__, taken.__qualname__) != (component.__module__, component.__qualname__):
            raise RecipeError(
                f"{kind}: {_place(component)} registers the name '{component.name}', which {_place(taken)} has. Give "
                "it another name, or uninstall the package that one of the two is from."
            )
        _registered[kind][component.name] = component  # a module that is loaded again replaces its own
        return component

    return mark


def _place(component: type[Any]) -> str:
    file = getattr(sys.modules.get(component.__module__), "__file__", None)
    return f"{component.__module__}.{component.__qualname__}" + (f" ({file})" if file else "")


@cache
def _discover(kind: str) -> None:
    """Import every file of the kind's folders and every entry point of the kind, once."""
    named = KINDS[kind]
    for folder in (named,) if isinstance(named, str) else named:
        package = importlib.import_module(folder)
        for info in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{folder}.{info.name}")
        for point in entry_points(group=folder):
            point.load()


def components(kind: str) -> dict[str, type[Any]]:
    """Return every component of a kind by name, sorted.

    Args:
        kind: one of the keys of KINDS.
    Returns:
        Name to class.
    """
    _discover(kind)
    return dict(sorted(_registered[kind].items()))


def singular(kind: str) -> str:
    """Return the word for one component of a kind.

    Args:
        kind: one of the keys of KINDS.
    Returns:
        The word.
    Example:
        >>> singular("strategies"), singular("losses"), singular("tasks")
        ('strategy', 'loss', 'task')
    """
    for many, one in (("ies", "y"), ("sses", "ss"), ("s", "")):
        if kind.endswith(many):
            return kind.removesuffix(many) + one
    return kind


def find(kind: str, name: str, key: str = "") -> type[Any]:
    """Return one component by name.

    Args:
        kind: one of the keys of KINDS.
        name: as the user wrote it.
        key: of the recipe, where the user wrote it.
    Returns:
        The registered class.
    Raises:
        RecipeError: no such component; the message offers the nearest name.
    """
    available = components(kind)
    if name not in available:
        raise RecipeError(f"{key}: " * bool(key) + unknown(singular(kind), name, available))
    return available[name]


def setting_fields(kind: str, name: str) -> list[dict[str, Any]]:
    """Describe the settings of one component, for help texts, docs and forms.

    Args:
        kind: one of the keys of KINDS.
        name: the component.
    Returns:
        One row per setting: name, default, help.
    """
    rows = []
    for key, field in getattr(find(kind, name), "model_fields", {}).items():
        inner = getattr(field.default, "model_fields_set", None) is not None
        nested = type(field.default).model_fields if inner else {}
        rows += [_row(f"{key}.{name}", one) for name, one in nested.items()] if inner else [_row(key, field)]
    return rows


def _row(name: str, field: Any) -> dict[str, Any]:
    return {"name": name, "default": field.default, "help": field.description or ""}
