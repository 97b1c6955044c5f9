"""Parameter-efficient methods, one per file; `tunesmith.methods.Lora` finds a class without saying which file."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """Find a method's class by its own name; those of installed packages too."""
    if not name[:1].isupper():
        raise AttributeError(f"module 'tunesmith.methods' has no attribute '{name}'")
    from tunesmith.core.registry import components

    found = {own.__name__: own for own in components("methods").values()}
    if name not in found:
        raise AttributeError(f"tunesmith.methods: no method's class is called '{name}'. There are: {', '.join(found)}")
    return found[name]
