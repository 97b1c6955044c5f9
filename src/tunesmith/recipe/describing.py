"""The recipe's keys as a JSON schema."""

from __future__ import annotations

from typing import Any

from tunesmith.recipe.listed import LISTED
from tunesmith.recipe.loading import COMPONENTS
from tunesmith.recipe.named import choices
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
        schema["properties"][key] = {"description": field.description, "anyOf": [*choices(kind), *empty]}
    schema["properties"]["method"]["anyOf"] += choices("choosers")
    schema["properties"]["model"] = {"anyOf": [{"type": "string"}, schema["properties"]["model"]]}
    for key, kind in LISTED.items():
        schema["$defs"]["DataSettings"]["properties"][key]["items"] = {"anyOf": choices(kind)}
    return schema
