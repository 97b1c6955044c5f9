"""Values against the settings they are for: every mistake is a sentence that begins with its key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from tunesmith.core.errors import unknown

_SEARCH = ". Settings of a search are words of its command: tunesmith search recipe.yaml search.strategy=random"


def validated(model: type[BaseModel], values: Any, prefix: str, problems: list[str]) -> Any:
    """Build settings from values.

    Args:
        model: a Settings class.
        values: of its fields.
        prefix: what stands before its keys, for example "method.".
        problems: what is wrong is added here, one sentence each that begins with its key.
    Returns:
        The settings; None where something is wrong.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        found: dict[str, list[str]] = {}
        for item in error.errors():  # a value that may be of several kinds has an error for each
            said, why = _sentence(model, item, prefix)
            found.setdefault(said, []).append(why)
        problems.extend(f"{said}{' Or: '.join(dict.fromkeys(why))}" for said, why in found.items())
    return None


def _sentence(model: type[BaseModel], item: Any, prefix: str) -> tuple[str, str]:
    """Word what is wrong, and why."""
    path = [str(part) for part in item["loc"]]
    if item["type"] == "extra_forbidden":
        parent = ".".join([prefix.rstrip("."), *path[:-1]]).strip(".")
        where = f" (below '{parent}')" if parent else ""
        hint = _SEARCH if path == ["search"] and not parent else ""
        return f"{prefix}{'.'.join(path)}: {unknown('key', path[-1], _keys(model, path[:-1]))}{where}{hint}", ""
    if item["type"] == "missing":
        return f"{prefix}{'.'.join(path)}: required and not given.", ""
    known = [part for part in path if part.replace("_", "").isalnum() and part not in ("str", "float", "int")]
    why = item["msg"].removeprefix("Value error, ")
    if item["type"] == "string_type" and isinstance(item["input"], int | float):
        why += "; YAML reads a text out of quotes"
    if not path:  # about several keys together
        return f"{prefix.rstrip('.') or 'recipe'}: ", f"{why}."
    shown = "" if isinstance(item["input"], Mapping) and item["type"] == "value_error" else repr(item["input"])[:80]
    said = f"{prefix}{'.'.join(known)}: " + (f"{shown} is not allowed. " if shown else "")
    return said, f"{why}."


def _keys(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        annotation = model.model_fields[part].annotation
        kinds = [annotation, *get_args(annotation)]  # a key that may be left empty is a union
        inner = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


def worded(source: str, problems: list[str], lines: dict[str, int]) -> str:
    """Put all mistakes into one message.

    Args:
        source: what to call the recipe.
        problems: one sentence each that begins with its key.
        lines: of each key in the file; 0 for the command line.
    Returns:
        Several lines.
    """
    rows = []
    for problem in problems:
        key = problem.split(":")[0]
        place = {None: "", 0: "command line: "}.get(lines.get(key), f"line {lines.get(key)}: ")
        rows.append(f"  {place}{problem}")
    count = f"{len(rows)} mistake{'s' if len(rows) > 1 else ''}"
    return "\n".join([f"{source}: {count}, nothing was loaded.", *rows])
