"""`tunesmith prompts`: look at a prompt, rank prompts, search one, show a soft prompt as words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli import show as display
from tunesmith.cli import talk as talking
from tunesmith.cli.arguments import Json

app = typer.Typer(
    help="Look at prompts, measure them, search them, and show soft ones as words.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Recipe = Annotated[str, typer.Argument(help="Recipe of the task prompt-classification, a YAML file.")]
Change = Annotated[list[str] | None, typer.Option("--set", help="key=value of the recipe; may be given several times.")]
Metric = Annotated[str | None, typer.Option(help="What decides; the task's first metric by default.")]


@app.command()
def show(
    recipe: Recipe,
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, for example prompt.file=p.yaml.")] = None,
    rows: Annotated[int, typer.Option(help="So many first rows; the longest is shown too.")] = 3,
    as_json: Json = False,
) -> None:
    """Show a prompt filled in, its length in tokens, and what would be cut."""
    from tunesmith.api import show_prompts

    found = show_prompts(recipe, overrides or [], rows)
    display.give(found, as_json, talking.prompted(found))


@app.command()
def rank(
    recipe: Recipe,
    prompts: Annotated[list[str], typer.Argument(help="Prompt files, the one in use first.")],
    output: Annotated[str | None, typer.Option(help="New folder for table and report.")] = None,
    metric: Metric = None,
    changes: Change = None,
    as_json: Json = False,
) -> None:
    """Score prompts on validation rows: intervals, paired tests, ensembles."""
    from tunesmith.api import rank_prompts

    found = rank_prompts(recipe, prompts, changes or [], output=output, metric=metric)
    display.give(found.plain(), as_json, display.ranking(found))


@app.command()
def search(
    recipe: Recipe,
    budget: Annotated[str, typer.Option(help="Evaluations (200), or a time (60s, 5m).")],
    output: Annotated[str, typer.Option(help="Study folder; prompt.yaml in it is the result.")],
    options: Annotated[list[str] | None, typer.Argument(help="key=value of the recipe, or search.key=value.")] = None,
    strategy: Annotated[str, typer.Option(help="tunesmith list strategies")] = "beam",
    resume: Annotated[bool, typer.Option(help="Go on with a search that was stopped.")] = False,
    as_json: Json = False,
) -> None:
    """Find a better prompt within a budget; test is not read."""
    from tunesmith.api import search_prompts

    found = search_prompts(recipe, budget, output, options or [], strategy=strategy, resume=resume)
    display.give(found, as_json, display.searched(found, Path(output)))


@app.command()
def words(
    run: Annotated[str, typer.Argument(help="Run of prompt-tuning or p-tuning.", metavar="RUN")],
    count: Annotated[int, typer.Option(help="Words per virtual token.")] = 5,
    as_json: Json = False,
) -> None:
    """Show a soft prompt as its nearest words, with distances."""
    from tunesmith.api import prompt_words

    found = prompt_words(run, count)
    plain = [[vars(near) for near in token] for token in found]
    display.give({"run": run, "virtual_tokens": plain}, as_json, display.nearest(found))
