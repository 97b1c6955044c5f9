"""What a recipe that goes on from a run leaves open is taken from that run's recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith.core.errors import RecipeError
from tunesmith.recipe.lines import parse

INHERITED = ("model", "task", "prompt", "method")


def find_run(start_from: str, folder: Path) -> Path:
    """Find the run that a recipe goes on from: beside the recipe first, then in the current folder.

    Args:
        start_from: as the user wrote it.
        folder: the recipe's.
    Returns:
        The run's folder, whether it is there or not.
    """
    wanted = Path(start_from).expanduser()
    return (folder / wanted if (folder / wanted).is_dir() else wanted).absolute()


def inherit_values(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Fill in what the earlier run says about keys that the recipe leaves out.

    Args:
        values: of the recipe.
        folder: the recipe's.
    Returns:
        The values; the same ones when the recipe starts anew, or its run is not there.
    Raises:
        RecipeError: the run's recipe is damaged.
    """
    wanted = values.get("start_from")
    missing = [key for key in INHERITED if key not in values]
    if not isinstance(wanted, str):
        return dict(values)
    run = find_run(wanted, folder)
    path = run / "recipe.yaml"
    if not path.is_file():
        return dict(values)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"start_from: {path} cannot be read: {error}. Restore the file, or name another run."
        ) from None
    theirs = parse(text, str(path))[0]
    taken = {key: theirs[key] for key in missing if key in theirs}
    model = taken.get("model")
    if isinstance(model, dict) and (run / str(model.get("name")) / "config.json").is_file():
        taken["model"] = {**model, "name": str(run / model["name"])}  # made for that run, and kept in it
    return {**values, **taken, **{key: _completed(values[key], theirs.get(key)) for key in _NAMED if key in values}}


_NAMED = ("method", "task")  # by a name, which may stand for the whole, with settings


def _completed(ours: Any, theirs: Any) -> Any:
    """Fill in what a component leaves out where the earlier run has one of the same name, or it gives no name."""
    own, whole = ({"name": one} if isinstance(one, str) else one for one in (ours, theirs))
    if not isinstance(own, Mapping) or not isinstance(whole, Mapping):
        return ours
    return {**whole, **own} if own.get("name", whole.get("name")) == whole.get("name") else ours
