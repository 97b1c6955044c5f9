"""`tunesmith merge`, `unmerge`, `convert`, `merge-deltas` and `mix`: what is done with trained deltas."""

from __future__ import annotations

from typing import Annotated

import typer

from tunesmith.cli import show as display
from tunesmith.cli.arguments import Json, Output


def merge(
    source: Annotated[str, typer.Argument(help="Run folder, or delta folder.", metavar="RUN|DELTA")],
    output: Output,
    data: Annotated[str | None, typer.Option(help="File with held-out texts; the run's own by default.")] = None,
    tolerance: Annotated[float | None, typer.Option(help="Largest difference, relative to the largest logit.")] = None,
    rows: Annotated[int, typer.Option(help="Compare at most so many rows.")] = 256,
    keep: Annotated[bool, typer.Option(help="Store the untouched tensors too, for unmerge.")] = True,
    as_json: Json = False,
) -> None:
    """Write base and delta as one model, if it answers as the tuned one."""
    from tunesmith.api import merge as carry_out

    found = carry_out(source, output, data, tolerance=tolerance, rows=rows, keep=keep)
    display.give(found, as_json, display.facts(found))


def unmerge(
    folder: Annotated[str, typer.Argument(help="Folder that `tunesmith merge` wrote.")],
    output: Output,
    as_json: Json = False,
) -> None:
    """Write the base model of a merged one, bit for bit."""
    from tunesmith.api import unmerge as carry_out

    found = carry_out(folder, output)
    display.give(found, as_json, display.facts(found))


def convert(
    folder: Annotated[str, typer.Argument(help="Delta folder, or run folder.")],
    to: Annotated[str, typer.Option(help="peft, peft-lora, torchtune or adapterhub.")],
    output: Output,
    model: Annotated[str | None, typer.Option(help="Base model; by adapter_config.json when not given.")] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of peft-lora; the smallest that suffices by default.")] = None,
    tolerance: Annotated[float, typer.Option(help="Largest relative error of a layer under peft-lora.")] = 1e-2,
    as_json: Json = False,
) -> None:
    """Write a delta in the layout of another library."""
    from tunesmith.api import convert as carry_out

    found = carry_out(folder, to, output, model=model, rank=rank, tolerance=tolerance)
    display.give(found, as_json, display.facts(found))


def merge_deltas(
    deltas: Annotated[list[str], typer.Argument(help="Folders of LoRA deltas, or of runs.")],
    weights: Annotated[str, typer.Option(help="One number per delta, for example 0.5,0.5.")],
    output: Output,
    how: Annotated[str, typer.Option(help="svd, linear, ties, dare or magnitude.")] = "svd",
    density: Annotated[float | None, typer.Option(help="Share that stays under ties, dare, magnitude.")] = None,
    rank: Annotated[int | None, typer.Option(help="Combine weight changes, cut to this rank.")] = None,
    as_json: Json = False,
) -> None:
    """Combine LoRA deltas into one and say what that lost."""
    from tunesmith.api import merge_deltas as carry_out

    found = carry_out(deltas, display.numbers(weights), how, density=density, rank=rank, output=output)
    display.give(found, as_json, display.facts(found))


def mix(
    runs: Annotated[list[str], typer.Argument(help="Run folders of the same labels.", metavar="RUN")],
    data: Annotated[str, typer.Option(help="Labelled validation rows that choose the weights.")],
    output: Output,
    as_json: Json = False,
) -> None:
    """Add up the probabilities of runs, with weights chosen on validation rows."""
    from tunesmith.api import mix as carry_out

    _, found = carry_out(runs, data, output)
    display.give({"output": output, **found}, as_json, display.mixed(found))
