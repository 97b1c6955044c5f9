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
    ours, theirs = (_shown(facts.get(differ[0])) for facts in (now, kept))
    more = f" ({len(differ)} differences)" if len(differ) > 1 else ""
    raise CheckpointError(
        f"{what}: {differ[0]} is {ours}, there it was {theirs}{more}. {then}, or choose another output."
    )


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {one}" for key, one in value.items() if one is not None)[:_MOST]
    return (repr(value) if isinstance(value, str) else str(value))[:_MOST]
