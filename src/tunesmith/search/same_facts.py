"""Whether what is gone on with was begun with the same words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tunesmith.core.errors import CheckpointError

_MOST = 200  # characters of a value that are shown


def check_same(
    what: str, kept: Mapping[str, Any], own: Mapping[str, Any], then: str = "Go on with the same words"
) -> None:
    """Refuse to go on with something else.

    Args:
        what: beginning of the message: a folder or file, and of what else it may be.
        kept: facts that were written when it was begun.
        own: the same facts now, of plain values.
        then: what to do about a difference, without a full stop.
    Raises:
        CheckpointError: they differ; the first difference is shown with both values.
    """
    now = json.loads(json.dumps(own))
    differ = sorted(key for key in kept.keys() | now.keys() if kept.get(key) != now.get(key))
    if not differ:
        return
    name, ours, theirs = _narrowest(differ[0], now.get(differ[0]), kept.get(differ[0]))
    more = f" ({len(differ)} differences)" if len(differ) > 1 else ""
    raise CheckpointError(
        f"{what}: {name} is {_shown(ours)}, there it was {_shown(theirs)}{more}. {then}, or choose another output."
    )


def _narrowest(name: str, ours: Any, theirs: Any) -> tuple[str, Any, Any]:
    """Follow a difference into the one field that differs, where all others of the same fields are alike."""
    while isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
        fields = [key for key in ours if ours[key] != theirs[key]]
        if len(fields) != 1:
            break
        name, ours, theirs = f"{name}.{fields[0]}", ours[fields[0]], theirs[fields[0]]
    return name, ours, theirs


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {one}" for key, one in value.items() if one is not None)[:_MOST]
    return (repr(value) if isinstance(value, str) else str(value))[:_MOST]
