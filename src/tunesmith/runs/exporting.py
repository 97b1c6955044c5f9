"""Write converted and combined deltas as folders that are complete or absent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.errors import RecipeError
from tunesmith.methods.dialects import Wanted, convert_delta
from tunesmith.methods.merging import combine
from tunesmith.methods.store import write_folder
from tunesmith.models.delta import Delta
from tunesmith.runs.folder import check_new, check_single, staged


def convert_folder(folder: Path, to: str, output: Path, wanted: Wanted) -> dict[str, Any]:
    """Convert a delta folder.

    Args:
        folder: ours, PEFT's, torchtune's or AdapterHub's; of a run, its delta is taken.
        to: peft, peft-lora, torchtune or adapterhub.
        output: new folder.
        wanted: model and bounds.
    Returns:
        What was done, as plain values.
    Raises:
        RecipeError: a rank or a tolerance that means nothing there.
        CompatibilityError: the target has no form for this delta.
        CheckpointError: the folder is damaged, or the output exists.
    """
    _check_bounds(to, wanted)
    check_new(output)
    check_single(folder, "convert")
    inside = folder / "delta"
    found = convert_delta(inside if (inside / "adapter_config.json").is_file() else folder, to, wanted)
    with staged(output) as staging:
        write_folder(staging, found.config, found.tensors, found.weights)
    return {"output": str(output), **found.facts}


def merge_folders(
    deltas: Sequence[str | Path | Delta], weights: Sequence[float], output: Path | None, **settings: Any
) -> dict[str, Any]:
    """Combine LoRA deltas into one folder.

    Args:
        deltas: folders, of deltas or of runs, or attached deltas.
        weights: one per delta.
        output: new folder; None only measures.
        **settings: of `combine`.
    Returns:
        What was lost, as plain values.
    Raises:
        CompatibilityError: deltas that do not go together.
        CheckpointError: a folder is damaged, or the output exists.
    """
    if output is not None:
        check_new(output)
    found = combine([_delta_of(delta) for delta in deltas], weights, **settings)
    if output is not None:
        with staged(output) as staging:
            write_folder(staging, found.config, found.tensors)
    return {"output": None if output is None else str(output), **found.facts}


def _check_bounds(to: str, wanted: Wanted) -> None:
    rank = wanted.rank
    if rank is not None and to != "peft-lora":
        raise RecipeError(f"rank={rank}: only peft-lora is of a chosen rank; leave it out for '{to}'.")
    if rank is not None and rank < 1:
        raise RecipeError(f"rank={rank}: a whole number above 0 is needed, or none for the smallest that suffices.")
    if not 0.0 <= wanted.tolerance < math.inf:
        raise RecipeError(f"tolerance={wanted.tolerance}: a number of at least 0 is needed; 0.01 is usual.")


def _delta_of(source: str | Path | Delta) -> str | Path | Delta:
    if isinstance(source, Delta):
        return source
    check_single(Path(source), "combine")
    inside = Path(source) / "delta"
    return inside if (inside / "adapter_config.json").is_file() else source
