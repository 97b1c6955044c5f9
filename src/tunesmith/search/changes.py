"""Changes of a recipe that a closed loop tries, and how they add up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.search.space import written


@dataclass(frozen=True)
class Change:
    """Some keys of a recipe with other values.

    Args:
        what: it does, in a phrase.
        values: plain ones by dotted key.
        why: the evidence that speaks for it, in a sentence.
    """

    what: str
    values: Mapping[str, Any]
    why: str


def merged(values: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Add changes to changes; a key takes the place of those below it.

    Args:
        values: by dotted key.
        more: that win.
    Returns:
        Both, in the order in which they are written.
    Example:
        >>> merged({"method.rank": 4, "seed": 1}, {"method": {"name": "bitfit"}})
        {'seed': 1, 'method': {'name': 'bitfit'}}
    """
    found = {
        key: value
        for key, value in values.items()
        if not any(key == other or key.startswith(f"{other}.") for other in more)
    }
    return {**found, **more}


def words_of(values: Mapping[str, Any]) -> list[str]:
    """Write changes as overrides.

    Args:
        values: by dotted key.
    Returns:
        `key=value` texts, as the command line takes them.
    """
    return [written(key, value) for key, value in values.items()]
