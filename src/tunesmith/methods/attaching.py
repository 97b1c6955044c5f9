"""Attach a delta to any model, by a method, its name or a saved delta."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from tunesmith.core.errors import CheckpointError, RecipeError
from tunesmith.core.registry import components
from tunesmith.methods.base import Method
from tunesmith.methods.store import CONFIG, load_delta, save_delta
from tunesmith.models.delta import Delta
from tunesmith.models.seams import open_seams
from tunesmith.recipe.loading import build_component


def attach(
    model: nn.Module,
    method_or_folder: Method | str | Path,
    name: str = "default",
    *,
    tokenizer: Any = None,
    **settings: Any,
) -> Delta:
    """Attach a delta to any model, without a recipe.

    Args:
        model: a transformers model or a plain torch module; its parameters are frozen.
        method_or_folder: a method, the name of one, or a folder with a saved delta, ours or PEFT's.
        name: of the delta.
        tokenizer: of the model, for methods that start from a text or name tokens.
        **settings: of a method given by name, for example rank=16.
    Returns:
        The delta, active for all rows; its `save` writes a folder, `merge` and `detach` end it.
    Raises:
        TargetError: no layer matches.
        RecipeError: an unknown method, a setting it does not take, or what names a method and a saved delta.
        CheckpointError: the folder is not there, or does not fit the model.
    """
    if not isinstance(model, nn.Module) or not isinstance(method_or_folder, Method | str | Path):
        raise RecipeError(
            "attach takes a torch module and a method, the name of one or a delta's folder, not "
            f"{type(model).__name__} and {method_or_folder!r}."
        )
    folder = None if isinstance(method_or_folder, Method) else _saved_at(method_or_folder)
    named = not isinstance(method_or_folder, Method) and folder is None
    if settings and not named:
        raise RecipeError(
            f"settings {', '.join(sorted(settings))} belong to a method given by name; {method_or_folder!s} has its "
            "own. Leave them out, or give the method's name instead."
        )
    place = str(method_or_folder)
    if named and (isinstance(method_or_folder, Path) or "/" in place or "\\" in place):
        raise CheckpointError(f"{place} is no folder. Give the folder of a saved delta, a method or the name of one.")
    seams = open_seams(model)
    seams.tokenizer = seams.tokenizer if tokenizer is None else tokenizer
    method: Method
    if isinstance(method_or_folder, Method):
        method, delta = method_or_folder, method_or_folder.attach(seams, name)
    elif folder is not None:
        method, delta = load_delta(folder, seams, name)
    else:
        method = build_component("methods", str(method_or_folder), settings)
        delta = method.attach(seams, name)
    delta.writer = partial(_write, method)
    return delta


def _saved_at(given: str | Path) -> Path | None:
    """Tell a folder from a method's name; what is both has to be told apart."""
    folder, methods = Path(given), components("methods")
    if not folder.is_dir():
        return None
    if not isinstance(given, str) or given not in methods:
        return folder
    if (folder / CONFIG).is_file():
        raise RecipeError(
            f"'{given}' is a method, and a folder of that name here holds a saved delta. Give './{given}' for the "
            f"delta, or tunesmith.methods.{methods[given].__name__}() for the method."
        )
    return None


def _write(method: Method, folder: Path, delta: Delta) -> None:
    base = getattr(delta.seams.model, "name_or_path", "")
    save_delta(folder, method, delta, base if isinstance(base, str) else "")
