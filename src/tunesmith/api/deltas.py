"""Verbs for trained deltas."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from tunesmith.methods.dialects import Wanted
from tunesmith.models.delta import Delta
from tunesmith.models.seams import open_seams
from tunesmith.runs.exporting import convert_folder, merge_folders
from tunesmith.runs.merging import merge_verified, unmerge_folder
from tunesmith.runs.run import Run


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


def merge(
    source: Run | Delta | str | Path,
    output: str | Path,
    data: str | None = None,
    *,
    tolerance: float | None = None,
    rows: int = 256,
    keep: bool = True,
) -> dict[str, Any]:
    """Merge a delta into its base model and write it as a folder, if it answers as the tuned model does.

    Args:
        source: a run or its folder, a delta folder, or an attached delta, which stays attached.
        output: new folder; `transformers.AutoModel.from_pretrained` loads it.
        data: file with held-out texts; None takes the run's, or random tokens for a delta without a run.
        tolerance: largest difference allowed, relative to the largest logit; 1e-3 in float32 when None.
        rows: at most so many are compared. [count]
        keep: store the untouched tensors too, so that `unmerge` gives them back bit for bit.
    Returns:
        Largest difference, mean KL divergence, argmax agreement and what else was found.
    Raises:
        CompatibilityError: the method cannot be merged, or the answers differ by more than the tolerance.
        CheckpointError: the output exists or cannot be written.
    """
    return merge_verified(source, Path(output).expanduser(), data, tolerance, rows, keep)


def unmerge(folder: str | Path, output: str | Path) -> dict[str, Any]:
    """Write the base model that a merged folder came from, bit for bit.

    Args:
        folder: that `merge` wrote.
        output: new folder.
    Returns:
        What was restored.
    Raises:
        CheckpointError: not such a folder, changed since, or merged with keep=False.
    """
    return unmerge_folder(Path(folder).expanduser(), Path(output).expanduser())


def convert(
    folder: str | Path,
    to: str,
    output: str | Path,
    *,
    model: nn.Module | str | None = None,
    rank: int | None = None,
    tolerance: float = 1e-2,
) -> dict[str, Any]:
    """Write a delta folder in the layout of another library.

    Args:
        folder: ours, PEFT's, torchtune's or AdapterHub's; of a run, its delta is taken.
        to: peft, peft-lora, torchtune or adapterhub.
        output: new folder.
        model: the base model, its folder or name; by the delta's config when None.
        rank: of peft-lora; the smallest that stays within the tolerance when None. [count]
        tolerance: largest relative error of a layer's weight change under peft-lora.
    Returns:
        What was written, and for peft-lora the error per layer.
    Raises:
        CompatibilityError: that library has no form for this delta; the message names those that have.
        CheckpointError: the folder is damaged, or the output exists.
    """
    return convert_folder(Path(folder).expanduser(), to, Path(output).expanduser(), Wanted(model, rank, tolerance))


def merge_deltas(
    deltas: Sequence[str | Path | Delta],
    weights: Sequence[float],
    how: str = "svd",
    *,
    density: float | None = None,
    rank: int | None = None,
    seed: int = 0,
    output: str | Path | None = None,
) -> dict[str, Any]:
    """Combine trained LoRA deltas of one base model into one, and say what that lost.

    Args:
        deltas: folders, of deltas or of runs, or attached deltas.
        weights: one per delta, of any sign.
        how: svd, linear, ties, dare or magnitude.
        density: share of the numbers that stay under ties, dare and magnitude; 0.5 when None. [fraction]
        rank: combine the weight changes and cut the result to this rank; None combines A with A and B with B, and
            for svd takes the largest rank of the deltas. [count]
        seed: of what dare drops.
        output: new folder; None only measures.
    Returns:
        Relative errors against the exact weighted sum of weight changes, and with a rank the kept energy.
    Raises:
        CompatibilityError: deltas that do not go together, or that are no plain LoRA.
        RecipeError: a setting outside its bounds.
    """
    place = None if output is None else Path(output).expanduser()
    return merge_folders(deltas, weights, place, how=how, density=density, rank=rank, seed=seed)
