"""The recipe's keys as a JSON schema."""

from __future__ import annotations

from typing import Any

from tunesmith.recipe.listed import LISTED
from tunesmith.recipe.named import choices
from tunesmith.recipe.schema import Recipe


def json_schema() -> dict[str, Any]:
    """Describe every key of a recipe, the components' settings included, as a JSON schema.

    Returns:
        The schema; editors complete recipes with it.
    """
    schema = Recipe.model_json_schema()
    for key, kind in (("task", "tasks"), ("method", "methods")):
        schema["properties"][key] = {"description": f"The {key}.", "anyOf": choices(kind)}
    schema["properties"]["model"] = {"anyOf": [{"type": "string"}, schema["properties"]["model"]]}
    for key in LISTED:
        schema["$defs"]["DataSettings"]["properties"][key]["items"] = {"anyOf": choices(key)}
    return schema
