"""YAML with the line of every key, so that an error can say where it is."""

from __future__ import annotations

from typing import Any

import yaml

from tunesmith.core.errors import RecipeError

_DEEPEST, _MOST = 50, 100_000  # keys below each other, and keys; aliases can make any number of them in a few lines


def parse(
    text: str, source: str, what: str = "a recipe", example: str = "task: text-classification"
) -> tuple[dict[str, Any], dict[str, int]]:
    """Read a YAML mapping.

    Args:
        text: the YAML.
        source: its file name, for errors.
        what: the file is, for errors.
        example: of a key and its value, for errors.
    Returns:
        The mapping, and the line of each dotted key.
    Raises:
        RecipeError: not YAML, not a mapping, a key that stands twice, or too many keys.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise _invalid(error, source) from None
    except RecursionError:
        raise RecipeError(f"{source}: lists or mappings stand too deep inside each other.") from None
    if not isinstance(node, yaml.MappingNode):
        raise RecipeError(f"{source}: {what} is a mapping of keys to values, for example `{example}`.")
    lines: dict[str, int] = {}
    _walk(node, "", lines, source)
    try:
        return yaml.constructor.SafeConstructor().construct_document(node), lines
    except (yaml.YAMLError, ValueError) as error:  # ValueError: the 45th of a month
        raise _invalid(error, source) from None


def _invalid(error: Exception, source: str) -> RecipeError:
    mark = getattr(error, "problem_mark", None)
    line = f", line {mark.line + 1}" if mark else ""
    return RecipeError(f"{source}{line}: not valid YAML: {getattr(error, 'problem', error)}")


def value_of(written: str) -> Any:
    """Read the value of a `key=value` word.

    Args:
        written: what stands behind the sign.
    Returns:
        The value as YAML reads it; the text itself where it is no YAML.
    """
    try:
        return yaml.safe_load(written)
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: the 45th of a month
        return written


def _walk(node: yaml.MappingNode, prefix: str, lines: dict[str, int], source: str) -> None:
    if prefix.count(".") > _DEEPEST or len(lines) > _MOST:
        raise RecipeError(
            f"{source}, line {node.start_mark.line + 1}: more than {_DEEPEST} keys deep, or more than {_MOST:,} keys. "
            "Where an alias (*NAME) repeats what it stands in, write it out."
        )
    for key, value in node.value:
        path = f"{prefix}{key.value}"
        if path in lines:
            raise RecipeError(
                f"{source}, line {key.start_mark.line + 1}: '{path}' stands twice (first in line {lines[path]}); "
                "keep one."
            )
        lines[path] = key.start_mark.line + 1
        if isinstance(value, yaml.MappingNode):
            _walk(value, f"{path}.", lines, source)
        for number, item in enumerate(value.value if isinstance(value, yaml.SequenceNode) else []):
            lines[f"{path}[{number}]"] = item.start_mark.line + 1
            if isinstance(item, yaml.MappingNode):
                _walk(item, f"{path}[{number}].", lines, source)
