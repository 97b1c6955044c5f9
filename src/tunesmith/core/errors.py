"""Every error a user can meet.

    TunesmithError
    ├── RecipeError          what the user wrote in a recipe or on the command line
    ├── DataError            what the data files hold
    ├── TargetError          layers that a method should adapt and that do not exist
    ├── CompatibilityError   a model that cannot be opened at a seam
    ├── CheckpointError      a run folder, a delta or weights that cannot be trusted
    ├── PrivacyError         a privacy promise that cannot be kept
    ├── SecurityError        something unsafe that was refused
    └── MissingDependency    an optional package that is not installed

A message says what was wrong with the value shown, where, what is allowed and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TunesmithError(Exception):
    """A mistake the user can mend; the command line shows the message and exits with 2."""


class RecipeError(TunesmithError):
    """A recipe or a command line that cannot be used as written."""


class DataError(TunesmithError):
    """Data that cannot be used as they are."""


class TargetError(TunesmithError):
    """No layer matches what a method was told to adapt."""


class CompatibilityError(TunesmithError):
    """A model that does not open at a seam."""


class CheckpointError(TunesmithError):
    """A run folder, delta or weight file that is damaged, foreign or in the way."""


class PrivacyError(TunesmithError):
    """A privacy promise that cannot be kept."""


class SecurityError(TunesmithError):
    """Something unsafe that was refused."""


class MissingDependency(TunesmithError):
    """An optional package is needed and not installed."""

    def __init__(self, package: str, extra: str, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs the package '{package}', which is not installed. "
            f"Install it with: pip install 'tunesmith[{extra}]'"
        )


def nearest(value: str, allowed: Iterable[str]) -> str | None:
    """Return the allowed name that looks most like a mistyped one.

    Args:
        value: what the user wrote.
        allowed: the names that exist.
    Returns:
        The nearest name, or None when nothing is near.
    Example:
        >>> nearest("lroa", ["lora", "bitfit"])
        'lora'
    """
    names = list(allowed)
    lowered = {name.lower(): name for name in names}
    found = difflib.get_close_matches(value.lower(), list(lowered), n=1, cutoff=0.5)
    return lowered[found[0]] if found else None


def unknown(what: str, value: str, allowed: Iterable[str]) -> str:
    """Word the sentence for a name that does not exist: the nearest one and all that are allowed.

    Args:
        what: the kind of thing, for example "column".
        value: what the user wrote.
        allowed: the names that exist.
    Returns:
        One sentence, without a final full stop.
    Example:
        >>> unknown("column", "txt", ["text", "label"])
        "unknown column 'txt'; did you mean 'text'? Allowed: label, text"
    """
    names = sorted(allowed)
    near = nearest(value, names)
    hint = f"; did you mean '{near}'?" if near else "."
    shown = ", ".join(names[:40]) + (f", ... ({len(names)} in all)" if len(names) > 40 else "")
    return f"unknown {what} '{value}'{hint} Allowed: {shown or 'none'}"
