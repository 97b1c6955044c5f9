"""The base of everything a user can set: frozen values with a default, bounds, a unit and a sentence."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator


class Settings(BaseModel):
    """Frozen settings; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false where a number is wanted; pydantic would read 1 and 0."""
        wanted = cls.model_fields[info.field_name or ""].annotation
        kinds = set(get_args(wanted)) or {wanted}
        if isinstance(value, bool) and kinds & {int, float} and bool not in kinds:
            raise ValueError("a number is wanted, not true or false")
        return value


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
    """A registered component: its fields are its settings, its class attributes its facts."""

    def describe(self) -> dict[str, Any]:
        """Return the component as plain values, its name first.

        Returns:
            {"name": ..., then every setting}.
        """
        return {"name": type(self).name, **self.model_dump(mode="json")}  # type: ignore[attr-defined]
