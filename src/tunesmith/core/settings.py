"""The base of everything a user can set: frozen values with a default, bounds, a unit and a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator


class Settings(BaseModel):
    """Frozen settings; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false where a number is wanted; pydantic would read 1 and 0."""
        if _truth_for_a_number(value, [cls.model_fields[info.field_name or ""].annotation]):
            raise ValueError("a number is wanted, not true or false")
        return value


def _truth_for_a_number(value: Any, wanted: list[Any]) -> bool:
    """Say whether true or false stands where a number is wanted: alone, or in a list or mapping."""
    kinds = [kind for one in wanted for kind in _kinds(one)]
    if isinstance(value, bool):
        kinds += [kind for one in kinds if get_origin(one) in (list, tuple) for kind in get_args(one)]  # one of them
        return (int in kinds or float in kinds) and bool not in kinds
    inner = [kind for one in kinds for kind in get_args(one)]
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return bool(inner) and any(_truth_for_a_number(item, inner) for item in items)


def _kinds(wanted: Any) -> list[Any]:
    """Return what a value may be: the members of a union, without their bounds."""
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin is Annotated:
        return _kinds(inner[0])
    return [kind for one in inner for kind in _kinds(one)] if origin in (Union, UnionType) else [wanted]


def setting(default: Any, help: str, *, unit: str | None = None, **bounds: Any) -> Any:
    """Declare one setting of a Settings class.

    Args:
        default: the value when the user says nothing.
        help: one sentence in the field's words.
        unit: the unit when the name does not say it, for example "count" or "fraction".
        **bounds: pydantic's bounds: ge, gt, le, lt, min_length.
    Returns:
        A pydantic field.
    """
    extra: dict[str, Any] | None = {"unit": unit} if unit else None
    return Field(default, description=help, json_schema_extra=extra, **bounds)


class Component(Settings):
    """A registered component: its fields are its settings, its class attributes its facts.

    Args:
        folders: settings that name the folder of a run or a model; where components are listed in a recipe, a relative
            one is looked for beside it first.
    """

    folders: ClassVar[tuple[str, ...]] = ()

    def describe(self) -> dict[str, Any]:
        """Return the component as plain values, its name first.

        Returns:
            {"name": ..., then every setting}.
        """
        return {"name": type(self).name, **self.model_dump(mode="json")}  # type: ignore[attr-defined]
