"""Components written as a bare name, or as a mapping with their settings, inside another component's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from tunesmith.core.errors import unknown
from tunesmith.core.registry import components, singular


def build_named(kind: str, written: Any) -> Any:
    """Build a component from what a user wrote.

    Args:
        kind: of the registry.
        written: its name, or a mapping with its name and settings.
    Returns:
        The component.
    Raises:
        ValueError: an unknown name or setting, or a value out of bounds; pydantic puts the key in front.
    """
    what = singular(kind)
    article = "an" if what[0] in "aeio" else "a"
    if isinstance(written, str):
        written = {"name": written}
    if not isinstance(written, Mapping) or not isinstance(written.get("name"), str):
        raise ValueError(f"{article} {what} is its name, or a mapping with 'name' and its settings")
    settings = {key: value for key, value in written.items() if key != "name"}
    available = components(kind)
    if written["name"] not in available:
        raise ValueError(unknown(what, written["name"], available))
    chosen = available[written["name"]]
    try:
        return chosen(**settings)
    except ValidationError as error:
        item = error.errors()[0]
        place = [str(part) for part in item["loc"]]
        if item["type"] == "extra_forbidden":
            raise ValueError(f"{chosen.name}: {unknown('key', '.'.join(place), chosen.model_fields)}") from None
        why = item["msg"].removeprefix("Value error, ")
        raise ValueError(f"{'.'.join([chosen.name, *place])}: {item['input']!r} is not allowed. {why}") from None
