"""YAML with the line of every key, so that an error can say where it is."""

from __future__ import annotations

from typing import Any

import yaml

from tunesmith.core.errors import RecipeError


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
        RecipeError: not YAML, not a mapping, or a key that stands twice.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise _invalid(error, source) from None
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


def _walk(node: yaml.MappingNode, prefix: str, lines: dict[str, int], source: str) -> None:
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
