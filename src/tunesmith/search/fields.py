"""What a field of a recipe may hold by its own type, so that choices and ranges are told from values."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from tunesmith.core.registry import components
from tunesmith.recipe.loading import COMPONENTS
from tunesmith.recipe.named import OfKind
from tunesmith.recipe.schema import Recipe


@dataclass(frozen=True)
class Field:
    """What a field may hold.

    Args:
        kinds: types, unions taken apart; empty for a key that no recipe has.
    """

    kinds: tuple[type[Any], ...] = ()

    @property
    def lists(self) -> bool:
        """Whether a list is a value of it."""
        return any(issubclass(kind, list | tuple | set | frozenset) for kind in self.kinds)

    @property
    def mappings(self) -> bool:
        """Whether a mapping with keys of the user's own is a value of it."""
        return any(issubclass(kind, dict) for kind in self.kinds)

    @property
    def only_whole(self) -> bool:
        """Whether a number of it is a whole one."""
        return int in self.kinds and float not in self.kinds

    def whole(self, numbers: Sequence[float]) -> bool:
        """Say whether a range means whole numbers only.

        Args:
            numbers: its ends and step.
        Returns:
            What the type says; for an unknown field, whether all are written without a fraction.
        """
        return self.only_whole if self.kinds else all(isinstance(number, int) for number in numbers)


def field_at(path: str, values: Mapping[str, Any]) -> Field:
    """Look a field up.

    Args:
        path: dotted key of a recipe.
        values: of the recipe, which name the components that settings belong to.
    Returns:
        What it may hold.
    """
    models: list[Any] = [Recipe]
    place: Any = values
    found: list[Any] = []
    parts = path.split(".")
    for depth, part in enumerate(parts):
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        found = [kind for field in fields for kind in _taken_apart(field.annotation)]
        place = place.get(part) if isinstance(place, Mapping) else None
        kinds = [COMPONENTS[part]] if depth == 0 and part in COMPONENTS else []
        kinds += [mark.kind for field in fields for mark in field.metadata if isinstance(mark, OfKind)]
        if kinds:
            models = _named(kinds[0], place, Recipe.model_fields[part].default if depth == 0 else None)
            found = [str]  # a component is a name or a mapping of its settings, never a list or a mapping of keys
        else:
            models = [kind for kind in found if issubclass(kind, BaseModel)]
    return Field(tuple(found))


def _named(kind: str, value: Any, default: Any) -> list[Any]:
    """Return the classes that a component's settings may belong to."""
    name = value.get("name", value) if isinstance(value, Mapping) else value
    name = name.get("choices", name) if isinstance(name, Mapping) else name
    names = name if isinstance(name, list) else [name]
    names = [one.get("name") if isinstance(one, Mapping) else one for one in names]
    available = components(kind)
    known = [available[one] for one in names if isinstance(one, str) and one in available]
    fallback = default["name"] if isinstance(default, Mapping) else None
    if known:
        return known
    return [available[fallback]] if fallback in available else list(available.values())


def _taken_apart(annotation: Any) -> list[type[Any]]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _taken_apart(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [kind for one in get_args(annotation) for kind in _taken_apart(one)]
    kind = origin or annotation
    return [kind] if isinstance(kind, type) and kind is not types.NoneType else []
