"""The public verbs: the only door for the command line, the server and the studio."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from tunesmith.core.progress import Progress
from tunesmith.methods.base import Method
from tunesmith.methods.store import load_delta
from tunesmith.models.delta import Delta
from tunesmith.models.seams import open_seams
from tunesmith.recipe.loading import build_component
from tunesmith.runs.run import Prediction, Run
from tunesmith.runs.training import train_recipe

__all__ = ["Prediction", "Run", "attach", "route", "train"]


def train(
    recipe: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Carry out a recipe from data to a run folder.

    Args:
        recipe: a YAML file, or a mapping with the same keys.
        overrides: `key=value` texts that win over the recipe, for example "method.rank=16".
        overwrite: replace an existing run.
        progress: where to show progress; bars on a terminal when None.
    Returns:
        The run.
    Raises:
        TunesmithError: any mistake in recipe, data or model, with what to do about it.
    """
    return Run(train_recipe(recipe, overrides, overwrite, progress))


def attach(model: nn.Module, method_or_folder: Method | str | Path, name: str = "default", **settings: Any) -> Delta:
    """Attach a delta to any model, without a recipe.

    Args:
        model: a transformers model or a plain torch module; its parameters are frozen.
        method_or_folder: a method, the name of one, or a folder with a saved delta, ours or PEFT's.
        name: of the delta.
        **settings: of a method given by name, for example rank=16.
    Returns:
        The delta, active for all rows.
    Raises:
        TargetError: no layer matches.
        RecipeError: an unknown method, or a setting it does not take.
        CheckpointError: the folder does not fit the model.
    """
    seams = open_seams(model)
    if isinstance(method_or_folder, Method):
        return method_or_folder.attach(seams, name)
    if Path(method_or_folder).is_dir():
        return load_delta(Path(method_or_folder), seams, name)[1]
    method: Method = build_component("methods", str(method_or_folder), settings)
    return method.attach(seams, name)


@contextmanager
def route(model: nn.Module, names: Sequence[str | None]) -> Iterator[None]:
    """Choose each row's delta for the forward passes inside the block.

    Args:
        model: with deltas attached.
        names: one per row of the batch; None stands for the untouched base.
    Raises:
        CompatibilityError: an unknown name, or a delta that cannot share a pass.
    """
    with open_seams(model).route(names):
        yield
