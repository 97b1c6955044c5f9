"""`tunesmith learning-curve`: what more rows would give."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tunesmith.cli import show as display
from tunesmith.cli.arguments import Json


def learning_curve(
    recipe: Annotated[str, typer.Argument(help="Recipe, a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, or search.key=value.")] = None,
    points: Annotated[int, typer.Option(help="Sizes, the last one all rows.")] = 5,
    repeats: Annotated[int, typer.Option(help="Draws of rows, each with a seed of its own.")] = 3,
    output: Annotated[str, typer.Option(help="New folder for numbers and report.")] = "runs/learning-curve",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a curve that was stopped.")] = False,
    as_json: Json = False,
) -> None:
    """Train on growing shares of the rows; say what twice the data would give."""
    from tunesmith.api import learning_curve as carry_out

    found = carry_out(recipe, overrides or [], output=output, points=points, repeats=repeats, resume=resume)
    display.give(found, as_json, drawn(found))


def drawn(found: dict[str, Any]) -> str:
    """Draw a learning curve as a table.

    Args:
        found: its result.
    Returns:
        Several lines.
    """
    from tunesmith.search.learning_curve_report import HEADS, rows_of, sentences

    table = display.table_of(HEADS, rows_of(found))
    return "\n".join([table, *sentences(found), "", f"report: {found['report']}"])
