"""`tunesmith`: each command reads its words, calls one verb and prints what it gave back."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from tunesmith import __version__
from tunesmith.cli import prompts
from tunesmith.cli import show as display
from tunesmith.cli import talk as talking
from tunesmith.cli.arguments import Data, Folder, Json, Keys, Memory, Model, Output
from tunesmith.cli.curve import learning_curve
from tunesmith.cli.deltas import convert, merge, merge_deltas, mix, unmerge
from tunesmith.core.errors import RecipeError, TunesmithError
from tunesmith.core.importing import take_the_process
from tunesmith.core.launch import launched, speak_first

app = typer.Typer(
    name="tunesmith",
    help="Fine-tune pretrained models with few parameters: from data to a proven, servable model.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(prompts.app, name="prompts")
data_app = typer.Typer(help="Look at data.", no_args_is_help=True)
app.add_typer(data_app, name="data")
for verb in (learning_curve, merge, unmerge, convert, merge_deltas, mix):
    app.command()(verb)

_give = display.give


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="Recipe, a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, for example method.rank=16.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing run.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was killed or interrupted.")] = False,
    as_json: Json = False,
) -> None:
    """Tune a model as a recipe says, prove the gain, and leave a run folder."""
    from tunesmith.api import train as carry_out

    run = carry_out(recipe, overrides or [], overwrite=overwrite, resume=resume)
    if launched().rank == 0:
        _give({"run": str(run.folder), **run.summary}, as_json, display.trained(run))
    if run.summary["interrupted"]:
        raise typer.Exit(1)


@app.command()
def search(  # noqa: PLR0913 - a parameter per option
    recipe: Annotated[str, typer.Argument(help="Recipe with choices or ranges in place of values, a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value, for example method.rank=[4,8], or search.key=value.")
    ] = None,
    budget: Annotated[str | None, typer.Option(help="Time to search (10m).")] = None,
    trials: Annotated[int | None, typer.Option(help="Most trials; with a time, what ends first counts.")] = None,
    strategy: Annotated[str, typer.Option(help="tunesmith list strategies")] = "tpe",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a study that was stopped.")] = False,
    join: Annotated[bool, typer.Option("--join", help="Take trials of a study that is being searched now.")] = False,
    as_json: Json = False,
) -> None:
    """Search the settings that a recipe leaves open; the best run is scored on test once."""
    from tunesmith.api import search_settings

    found = search_settings(
        recipe, overrides or [], budget=budget, trials=trials, resume=resume, join=join, strategy=strategy
    )
    _give(found, as_json, display.studied(found))


@app.command()
def plan(
    data: Data,
    overrides: Keys = None,
    model: Model = None,
    time: Annotated[str | None, typer.Option(help="Longest a run may take (30m).")] = None,
    memory: Memory = None,
    output: Annotated[str, typer.Option(help="New recipe file of the first plan.")] = "recipe.yaml",
    as_json: Json = False,
) -> None:
    """Rank what could be done with data: score, time, memory; write the best recipe."""
    from tunesmith.api import plan as look
    from tunesmith.cli.planned import planned

    found = look(data, overrides or [], model=model, time=time, memory=memory, output=output)
    _give(found, as_json, planned(found))


@app.command()
def auto(
    data: Data,
    overrides: Keys = None,
    model: Model = None,
    time: Annotated[str | None, typer.Option(help="Longest that plan and run may take (30m).")] = None,
    memory: Memory = None,
    output: Annotated[str, typer.Option(help="Run folder.")] = "runs/auto",
    as_json: Json = False,
) -> None:
    """Guess the task of data, plan, and carry the best plan out."""
    from tunesmith.api import auto as carry_out

    run = carry_out(data, overrides or [], model=model, time=time, memory=memory, output=output)
    _give({"run": str(run.folder), **run.summary}, as_json, display.trained(run))


@app.command()
def loop(
    recipe: Annotated[str, typer.Argument(help="Recipe, a YAML file; nothing in it has to be open.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value, for example method.rank=16, or search.key=value.")
    ] = None,
    budget: Annotated[str | None, typer.Option(help="Time to use (10m), or a number of attempts.")] = None,
    trials: Annotated[int | None, typer.Option(help="Most attempts; with a time, what ends first counts.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a loop that was stopped.")] = False,
    as_json: Json = False,
) -> None:
    """Try, look at the errors, adjust, until the budget ends or nothing is gained; then score on test once."""
    from tunesmith.api import loop as go_round

    found = go_round(recipe, overrides or [], budget=budget, trials=trials, resume=resume)
    _give(found, as_json, display.looped(found))


@app.command()
def episodes(
    recipe: Annotated[str, typer.Argument(help="Recipe of meta-training, a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, for example learner=maml.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing run.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was killed or interrupted.")] = False,
    as_json: Json = False,
) -> None:
    """Learn to learn from a few examples: train on episodes, score on those of held-out classes."""
    from tunesmith.api import episodes as carry_out

    run = carry_out(recipe, overrides or [], overwrite=overwrite, resume=resume)
    _give({"run": str(run.folder), **run.summary}, as_json, display.episodes(run))
    if run.summary["interrupted"]:
        raise typer.Exit(1)


@app.command()
def evaluate(
    run: Folder, data: Annotated[str, typer.Argument(help="Labelled data file.")], as_json: Json = False
) -> None:
    """Score a run on labelled data, with intervals."""
    from tunesmith.api import Run

    found = Run.load(run)
    scores = found.evaluate(data)
    plain = {name: value.plain() for name, value in scores.items()}
    openings = len(found.openings)
    _give({"run": run, "data": data, "metrics": plain, "test_openings": openings}, as_json, display.scores(scores))


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(help="Two or more run folders.", metavar="RUN")],
    split: Annotated[str | None, typer.Option(help="test or validation; test where all have it.")] = None,
    metric: Annotated[str | None, typer.Option(help="Ranks and is tested; the task's first by default.")] = None,
    output: Annotated[str | None, typer.Option(help="New folder for page, Markdown and JSON.")] = None,
    as_json: Json = False,
) -> None:
    """Compare runs on the same rows: intervals, tests of every pair, cost, what changed."""
    from tunesmith.api import compare as look
    from tunesmith.cli.compared import compared

    found = look(runs, split=split, metric=metric, output=output)
    _give(found.plain(), as_json, compared(found, output))


@app.command()
def predict(
    run: Folder,
    text: Annotated[str, typer.Argument(help="A text, or a data file.", metavar="TEXT|FILE")],
    as_json: Json = False,
) -> None:
    """Answer a text, or every row of a file, with probabilities."""
    from tunesmith.api import Run

    found = Run.load(run)
    answers = found.predict_file(text) if display.is_file(text) else found.predict(text)
    plain = [{key: value for key, value in vars(answer).items() if value != ""} for answer in answers]
    calibration = found.calibration and vars(found.calibration)
    _give({"run": run, "calibration": calibration, "predictions": plain}, as_json, display.predictions(answers))


@app.command()
def calibrate(
    run: Folder,
    data: Annotated[str | None, typer.Option(help="Labelled rows; the run's validation rows by default.")] = None,
    precision: Annotated[float | None, typer.Option(help="Answer where so large a share is right.")] = None,
    coverage: Annotated[float | None, typer.Option(help="Answer so large a share of the rows.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take temperature and threshold back.")] = False,
    as_json: Json = False,
) -> None:
    """Let a run's probabilities mean what they say, and choose below which it gives no answer."""
    from tunesmith.api import Run
    from tunesmith.cli.compared import calibrated

    if remove and (data, precision, coverage) != (None, None, None):
        raise RecipeError("--remove takes the calibration back; leave out --data, --precision and --coverage with it.")
    opened = Run.load(run)
    found = (
        {"removed": opened.uncalibrate()} if remove else opened.calibrate(data, precision=precision, coverage=coverage)
    )
    _give({"run": run, **found}, as_json, calibrated(found, opened.folder))


@app.command()
def generate(
    run: Folder,
    prompt: Annotated[list[str], typer.Option(help="What to answer or to go on from; may be given several times.")],
    options: Annotated[list[str] | None, typer.Argument(help="key=value of task.decoding: temperature=0.8.")] = None,
    samples: Annotated[int, typer.Option(help="Texts per prompt.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of sampling.")] = 0,
    as_json: Json = False,
) -> None:
    """Let a run write; a single text appears as it is written."""
    from tunesmith.api import Run

    found, settings = Run.load(run), talking.settings(options or [])
    if len(prompt) == samples == 1 and not as_json:
        talking.stream(found.stream(prompt[0], seed=seed, **settings))
        return
    answers = found.answers(prompt, samples=samples, seed=seed, **settings)
    texts = [[one.text for one in some] for some in answers]
    finishes = [[one.finish for one in some] for some in answers]
    plain = {"run": run, "prompts": prompt, "texts": texts, "finishes": finishes}
    _give(plain, as_json, talking.texts(prompt, texts))


@app.command()
def chat(
    run: Folder,
    options: Annotated[list[str] | None, typer.Argument(help="key=value of task.decoding: temperature=0.8.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of sampling.")] = 0,
) -> None:
    """Talk with a run; an empty line ends."""
    from tunesmith.api import Run

    talking.talk(Run.load(run), seed, talking.settings(options or []))


@app.command()
def inspect(
    recipe: Annotated[str, typer.Argument(help="Recipe, a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, for example data.max_tokens=128.")] = None,
    rows: Annotated[int, typer.Option(help="So many first rows; the longest is shown too.")] = 3,
    as_json: Json = False,
) -> None:
    """Show what the model would read: input, learned and cut tokens."""
    from tunesmith.api import inspect as look

    found = look(recipe, overrides or [], rows)
    _give(found, as_json, talking.inspected(found))


@app.command("lr-range")
def lr_range(
    recipe: Annotated[str, typer.Argument(help="Recipe, a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, for example method.rank=16.")] = None,
    output: Annotated[str, typer.Option(help="Folder for the numbers and the picture.")] = "runs/lr-range",
    low: Annotated[float, typer.Option(help="First learning rate.")] = 1e-6,
    high: Annotated[float, typer.Option(help="Last learning rate.")] = 1.0,
    steps: Annotated[int, typer.Option(help="Steps, at most.")] = 100,
    as_json: Json = False,
) -> None:
    """Train a little with a rising learning rate, and suggest one."""
    from tunesmith.api import lr_range as carry_out

    found = carry_out(recipe, overrides or [], output, low=low, high=high, steps=steps)
    _give(found, as_json, display.rates(found))


@app.command()
def pet(  # noqa: PLR0913 - a parameter per option
    recipe: Annotated[str, typer.Argument(help="Recipe of a task with labels, a YAML file.")],
    prompts: Annotated[list[str], typer.Argument(help="Prompt files, one per pattern; and key=value of the recipe.")],
    unlabelled: Annotated[str, typer.Option(help="Data file of rows without labels.")],
    output: Output,
    temperature: Annotated[float, typer.Option(help="Above 1 softens what the patterns teach.")] = 2.0,
    weights: Annotated[str, typer.Option(help="Count patterns by accuracy on validation, or even.")] = "validation",
    compare: Annotated[bool, typer.Option(help="Train without the unlabelled rows too.")] = True,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what was stopped.")] = False,
    as_json: Json = False,
) -> None:
    """Tune several prompts, let them label rows, learn from that."""
    from tunesmith.api import exploit_patterns as carry_out

    changes = [word for word in prompts if "=" in word and not Path(word).exists()]
    files = [word for word in prompts if word not in changes]
    how: dict[str, Any] = {"temperature": temperature, "weights": weights, "compare": compare}
    taught = carry_out(recipe, files, unlabelled, output, changes, resume=resume, **how)
    _give(taught.summary(), as_json, display.taught(taught.summary()))


@data_app.command("inspect")
def inspect_data(  # noqa: PLR0913 - a parameter per option
    files: Annotated[list[str], typer.Argument(help="Data files, for example the splits.", metavar="FILE")],
    columns: Annotated[str, typer.Option(help="Text and label column, as text,label; guessed by default.")] = "",
    model: Annotated[str | None, typer.Option(help="Count the tokens of this model.")] = None,
    suspicious: Annotated[bool, typer.Option(help="Look for wrong labels by a model's features.")] = False,
    tagger: Annotated[str | None, typer.Option(help="Look for names by this token-classification model.")] = None,
    encoding: Annotated[str, typer.Option(help="Character encoding of text files.")] = "utf-8",
    output: Annotated[str | None, typer.Option(help="New folder for one HTML page.")] = None,
    as_json: Json = False,
) -> None:
    """Look through data files: what they are and what is odd about them."""
    from tunesmith.api import inspect_data as look
    from tunesmith.cli.examined import examined, named

    given = named(columns)
    found = look(files, **given, model=model, suspicious=suspicious, tagger=tagger, encoding=encoding, output=output)
    _give(found, as_json, examined(found))


@app.command("list")
def list_components(
    kind: Annotated[str, typer.Argument(help="methods, tasks, metrics, models, strategies, edits, ...")],
    as_json: Json = False,
) -> None:
    """List what there is of a kind, with its settings."""
    rows = display.component_rows(kind)
    _give({kind: rows}, as_json, display.components(rows))


@app.command()
def show(run: Folder, as_json: Json = False) -> None:
    """Show what a run is and how good it is."""
    from tunesmith.api import EpisodeRun, open_run

    found = open_run(run)
    shown = display.episodes(found) if isinstance(found, EpisodeRun) else display.trained(found)
    _give({"run": str(found.folder), "fingerprint": found.fingerprint, **found.summary}, as_json, shown)


@app.command()
def schema() -> None:
    """Print the recipe's JSON schema, for editors."""
    from tunesmith.recipe.describing import json_schema

    print(json.dumps(json_schema(), indent=2))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check this machine: versions, device, memory, disk, optional packages."""
    from tunesmith.cli.doctor import examine

    facts = examine()
    _give(facts, as_json, display.pairs(facts))
    if not facts["ready"]:
        raise typer.Exit(1)


@app.command()
def demo(
    output: Annotated[str, typer.Option(help="Folder of the run; replaced when it is a run.")] = "runs/demo",
    as_json: Json = False,
) -> None:
    """Tune the embedded model on the bundled customer-service intents."""
    from tunesmith.api import train as carry_out
    from tunesmith.cli.demo import recipe

    run = carry_out(recipe(output), overwrite=Path(output).exists())
    _give({"run": str(run.folder), **run.summary}, as_json, display.trained(run) + display.next_steps(run))


@app.callback(invoke_without_command=True)
def version(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Fine-tune pretrained models with few parameters: from data to a proven, servable model."""
    if context.invoked_subcommand not in (None, "train") and launched().count > 1:
        raise RecipeError(
            f"{launched().count} processes were started for `tunesmith {context.invoked_subcommand}`: only train knows "
            "how to share its work out. Start it without torchrun."
        )
    if show_version:
        print(f"tunesmith {__version__}")
        raise typer.Exit


def _note(message: Warning | str, *place: Any, **rest: Any) -> None:
    """Print a warning as one sentence, without the line of the program that gave it."""
    print(f"note: {message}", file=sys.stderr)


def run() -> None:
    """Run the command line; a user's mistake is one message and exit code 2, never a traceback."""
    warnings.showwarning = _note
    take_the_process()
    try:
        app()
    except TunesmithError as error:
        speak_first()
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as leaving:
        if leaving.code != 130:  # what typer makes of Ctrl-C
            raise
        print("interrupted; nothing is kept but what a line above names.", file=sys.stderr)
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - our own fault, worded instead of a traceback
        print(f"failed: {type(error).__name__}: {error}\nThis is a fault of ours, not of your input.", file=sys.stderr)
        sys.exit(1)
