"""The public verbs: the only door for the command line, the server and the studio."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from tunesmith.core.errors import CheckpointError, RecipeError
from tunesmith.core.progress import Progress
from tunesmith.methods.base import Method
from tunesmith.methods.dialects import Wanted
from tunesmith.methods.store import load_delta, save_delta
from tunesmith.models.delta import Delta
from tunesmith.models.seams import open_seams
from tunesmith.models.tokens import add_tokens
from tunesmith.recipe.loading import build_component
from tunesmith.runs.examining import inspect_files
from tunesmith.runs.exporting import convert_folder, merge_folders
from tunesmith.runs.inspecting import inspect_recipe
from tunesmith.runs.merging import merge_verified, unmerge_folder
from tunesmith.runs.mixing import Mix, mix
from tunesmith.runs.run import Prediction, Run
from tunesmith.runs.training import train_recipe

__all__ = [
    "Delta",
    "Mix",
    "Prediction",
    "Run",
    "add_tokens",
    "attach",
    "convert",
    "inspect",
    "inspect_data",
    "merge",
    "merge_deltas",
    "mix",
    "route",
    "train",
    "unmerge",
]


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


def inspect(recipe: str | Path | Mapping[str, Any], overrides: Sequence[str] = (), rows: int = 3) -> dict[str, Any]:
    """Show what a recipe's model would read: token by token, what is input, what is learned, what is cut.

    Args:
        recipe: a YAML file, or a mapping with the same keys.
        overrides: `key=value` texts that win over the recipe.
        rows: so many first training rows; the longest one is shown too. [count]
    Returns:
        "splits" with the facts of each, "rows" with "pieces" of text and what becomes of them, "warnings", and
        "closing", the tokens that end an answer.
    Raises:
        TunesmithError: any mistake in recipe, model or data.
    """
    return inspect_recipe(recipe, overrides, rows)


def inspect_data(
    files: str | Path | Sequence[str | Path],
    *,
    text: str | None = None,
    label: str | None = None,
    model: str | None = None,
    suspicious: bool = False,
    encoding: str = "utf-8",
    output: str | Path | None = None,
) -> dict[str, Any]:
    """Look through data files: what they are, and what is odd about them.

    Args:
        files: one, or the splits of one data set.
        text: text column; guessed when None.
        label: label column; guessed when None.
        model: whose tokens are counted; it judges labels too, minilm does when None.
        suspicious: look for labels that are probably wrong.
        encoding: of text files.
        output: new folder for one HTML page that opens offline, and the facts as JSON.
    Returns:
        "files" with the facts of each, "shared" rows of several files, "notes" for the user, and "page".
    Raises:
        DataError: a file that cannot be read, with its line.
        CheckpointError: the output exists or cannot be written.
    """
    given = [files] if isinstance(files, str | Path) else files
    return inspect_files(given, text=text, label=label, model=model, suspicious=suspicious, encoding=encoding,
                         output=output)  # fmt: skip


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
        RecipeError: an unknown method, or a setting it does not take.
        CheckpointError: the folder is not there, or does not fit the model.
    """
    if not isinstance(model, nn.Module) or not isinstance(method_or_folder, Method | str | Path):
        raise RecipeError(
            "attach takes a torch module and a method, the name of one or a delta's folder, not "
            f"{type(model).__name__} and {method_or_folder!r}."
        )
    named = not isinstance(method_or_folder, Method) and not Path(method_or_folder).is_dir()
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
    elif Path(method_or_folder).is_dir():
        method, delta = load_delta(Path(method_or_folder), seams, name)
    else:
        method = build_component("methods", str(method_or_folder), settings)
        delta = method.attach(seams, name)
    delta.writer = partial(_write, method)
    return delta


def _write(method: Method, folder: Path, delta: Delta) -> None:
    base = getattr(delta.seams.model, "name_or_path", "")
    save_delta(folder, method, delta, base if isinstance(base, str) else "")


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
