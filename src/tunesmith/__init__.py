"""Tunesmith: from a pretrained model and examples to a tuned, proven, servable model.

The public names load on first use, so that importing the package is quick.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Run": "tunesmith.api",
    "compare": "tunesmith.api",
    "Comparison": "tunesmith.api",
    "train": "tunesmith.api",
    "episodes": "tunesmith.api",
    "EpisodeRun": "tunesmith.api",
    "inspect": "tunesmith.api",
    "show_prompts": "tunesmith.api",
    "lr_range": "tunesmith.api",
    "inspect_data": "tunesmith.api",
    "attach": "tunesmith.api",
    "route": "tunesmith.api",
    "merge": "tunesmith.api",
    "unmerge": "tunesmith.api",
    "convert": "tunesmith.api",
    "merge_deltas": "tunesmith.api",
    "mix": "tunesmith.api",
    "rank_prompts": "tunesmith.api",
    "search_prompts": "tunesmith.api",
    "search_settings": "tunesmith.api",
    "plan": "tunesmith.api",
    "auto": "tunesmith.api",
    "loop": "tunesmith.api",
    "learning_curve": "tunesmith.api",
    "prompt_words": "tunesmith.api",
    "exploit_patterns": "tunesmith.api",
    "Mix": "tunesmith.api",
    "add_tokens": "tunesmith.api",
    "Delta": "tunesmith.api",
    "TunesmithError": "tunesmith.core.errors",
}
_PACKAGES = ("methods",)  # whose classes users build: tunesmith.methods.Lora(rank=8)

__all__ = ["__version__", *_PUBLIC, *_PACKAGES]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"tunesmith.{name}")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tunesmith' has no attribute '{name}'")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
