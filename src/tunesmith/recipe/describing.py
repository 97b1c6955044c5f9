"""Describe every key of a recipe to other programs."""

from __future__ import annotations

from typing import Any

from tunesmith.core.registry import components
from tunesmith.recipe.loading import COMPONENTS
from tunesmith.recipe.schema import Recipe


def json_schema() -> dict[str, Any]:
    """Describe every key of a recipe, the components' settings included, as a JSON schema.

    Returns:
        The schema; editors complete recipes with it.
    """
    schema = Recipe.model_json_schema()
    for key, kind in COMPONENTS.items():
        field = Recipe.model_fields[key]
        empty = [{"type": "null"}] if field.default is None else []
        schema["properties"][key] = {"description": field.description, "anyOf": [*_choices(kind), *empty]}
    schema["properties"]["model"] = {"anyOf": [{"type": "string"}, schema["properties"]["model"]]}
    return schema


def _choices(kind: str) -> list[dict[str, Any]]:
    names = list(components(kind))
    choices: list[dict[str, Any]] = [{"type": "string", "enum": names}]
    for name, component in components(kind).items():
        schema = component.model_json_schema()
        schema["properties"] = {"name": {"const": name}, **schema.get("properties", {})}
        schema["required"] = ["name", *schema.get("required", [])]
        choices.append(schema)
    return choices
