"""Components find themselves: a kind of component is a folder, a component is a file in it.

`register` marks the class in the file; `find` and `names` list the folder and the entry points of
installed packages. There is no list to edit when a component is added.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from typing import Any, TypeVar

from tunesmith.core.errors import RecipeError, unknown

# A kind of component and the folder its files live in. Entry-point group: the folder's dotted name.
KINDS = {
    "methods": "tunesmith.methods",
    "tasks": "tunesmith.tasks",
    "metrics": "tunesmith.evaluation.metrics",
    "baselines": "tunesmith.evaluation.baselines",
    "models": "tunesmith.models.embedded",
    "readers": "tunesmith.data.readers",
    "formats": "tunesmith.data.formats",
    "cleaning": "tunesmith.data.cleaning",
    "augmentations": "tunesmith.data.augmentations",
    "chats": "tunesmith.prompts.chats",
}

_registered: dict[str, dict[str, type[Any]]] = {kind: {} for kind in KINDS}

Class = TypeVar("Class", bound=type[Any])


def register(kind: str) -> Callable[[Class], Class]:
    """Mark the class of a file as the component of that file; its class attribute `name` is its name.

    Args:
        kind: one of the keys of KINDS.
    Returns:
        A decorator that returns the class unchanged.
    """

    def mark(component: Class) -> Class:
        _registered[kind][component.name] = component
        return component

    return mark


@cache
def _discover(kind: str) -> None:
    """Import every file of the folder and every entry point of the kind, once."""
    package = importlib.import_module(KINDS[kind])
    for info in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{KINDS[kind]}.{info.name}")
    for point in entry_points(group=KINDS[kind]):
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


def find(kind: str, name: str) -> type[Any]:
    """Return one component by name.

    Args:
        kind: one of the keys of KINDS.
        name: as the user wrote it.
    Returns:
        The registered class.
    Raises:
        RecipeError: no such component; the message offers the nearest name.
    """
    available = components(kind)
    if name not in available:
        raise RecipeError(unknown(kind.removesuffix("s"), name, available))
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
