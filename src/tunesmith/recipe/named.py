"""Keys of a recipe that hold a component: its name, or a mapping with its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from tunesmith.core.named import build_named
from tunesmith.core.registry import components


def named(value: Any) -> Any:
    """Write a component's bare name as a mapping.

    Args:
        value: as the user wrote it.
    Returns:
        {"name": value} for a name, else the value.
    """
    return {"name": value} if isinstance(value, str) else value


@dataclass(frozen=True)
class OfKind:
    """Marks a key that holds a component of a kind; written out, it has all of the component's settings.

    Args:
        kind: of the registry.
    """

    kind: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check what is given; a default is not, so that loading a recipe's keys loads no component."""
        whole = core_schema.plain_serializer_function_ser_schema(self._whole)
        return core_schema.no_info_plain_validator_function(self._checked, serialization=whole)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Offer every component with its settings."""
        return {"anyOf": choices(self.kind)}

    def _checked(self, value: Any) -> dict[str, Any]:
        build_named(self.kind, value)
        return dict(named(value))

    def _whole(self, value: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = build_named(self.kind, value).describe()
        return found


def choices(kind: str) -> list[dict[str, Any]]:
    """Describe every component of a kind as a JSON schema.

    Args:
        kind: of the registry.
    Returns:
        Alternatives: the bare names first.
    """
    names = list(components(kind))
    found: list[dict[str, Any]] = [{"type": "string", "enum": names}]
    for name, component in components(kind).items():
        schema = component.model_json_schema()
        schema["properties"] = {"name": {"const": name}, **schema.get("properties", {})}
        schema["required"] = ["name", *schema.get("required", [])]
        found.append(schema)
    return found
