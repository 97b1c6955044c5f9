"""Verbs that tune, and look at what would be tuned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.progress import Progress
from tunesmith.runs.episode_run import EpisodeRun
from tunesmith.runs.episodes import train_episodes
from tunesmith.runs.examining import Look, inspect_files
from tunesmith.runs.folder import is_meta_trained
from tunesmith.runs.inspecting import inspect_recipe, preview_prompts
from tunesmith.runs.rates import find_rate
from tunesmith.runs.run import Run
from tunesmith.runs.training import train_recipe


def train(
    recipe: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Carry out a recipe from data to a run folder.

    Args:
        recipe: a YAML file, or a mapping with the same keys.
        overrides: `key=value` texts that win over the recipe, for example "method.rank=16".
        overwrite: replace an existing run.
        resume: go on with a run that was killed or interrupted; it ends as if it never had been.
        progress: where to show progress; bars on a terminal when None.
    Returns:
        The run.
    Raises:
        TunesmithError: any mistake in recipe, data or model, with what to do about it.
        SystemExit: SIGTERM came while training ran; a checkpoint was written.
    """
    return Run(train_recipe(recipe, overrides, overwrite, progress, resume))


def episodes(
    recipe: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> EpisodeRun:
    """Learn to learn from a few examples: train on episodes of some classes, score on episodes of others.

    Args:
        recipe: a YAML file, or a mapping with the same keys; its keys are those of docs/fewshot.md.
        overrides: `key=value` texts that win over the recipe, for example "learner.order=second".
        overwrite: replace an existing run.
        resume: go on with a run that was killed or interrupted; it ends as if it never had been.
        progress: where to show progress; bars on a terminal when None.
    Returns:
        The run; its `answer` solves a new task from examples.
    Raises:
        TunesmithError: any mistake in recipe, data or model, with what to do about it.
        SystemExit: SIGTERM came while training ran; a checkpoint was written.
    """
    return EpisodeRun(train_episodes(recipe, overrides, overwrite, progress, resume))


def open_run(folder: str | Path) -> Run | EpisodeRun:
    """Open a run folder of any kind.

    Args:
        folder: that `train` or `episodes` left.
    Returns:
        The run; an `EpisodeRun` where it was meta-trained.
    Raises:
        CheckpointError: not a complete run folder.
    """
    return EpisodeRun.load(folder) if is_meta_trained(Path(folder).expanduser()) else Run.load(folder)


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


def show_prompts(
    recipe: str | Path | Mapping[str, Any], overrides: Sequence[str] = (), rows: int = 3
) -> dict[str, Any]:
    """Fill a recipe's prompt in with some training rows; say how long it is and what would be cut.

    Args:
        recipe: a YAML file, or a mapping with the same keys; of the task prompt-classification.
        overrides: `key=value` texts that win over the recipe.
        rows: so many first training rows; the longest one is shown too. [count]
    Returns:
        "prompt" as YAML, "limit" in tokens, "labels", "rows", "splits" and "warnings".
    Raises:
        TunesmithError: any mistake in recipe, model or data.
    """
    return preview_prompts(recipe, overrides, rows)


def lr_range(
    recipe: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    output: str | Path | None = None,
    *,
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 100,
) -> dict[str, Any]:
    """Train a little with a learning rate that rises from step to step, and suggest one; no run is left.

    Args:
        recipe: a YAML file, or a mapping with the same keys.
        overrides: `key=value` texts that win over the recipe.
        output: folder for the numbers and a picture, as SVG and PNG; None for none.
        low: first rate.
        high: last rate; the test ends earlier where the loss is far above its lowest.
        steps: at most. [count]
    Returns:
        "rates", "losses", "smoothed", "suggestion" (None where nothing can be said) and "reason".
    Raises:
        TunesmithError: any mistake in recipe, data, model or bounds.
    """
    place = None if output is None else Path(output).expanduser()
    return find_rate(recipe, overrides, place, (low, high), steps)


def inspect_data(  # noqa: PLR0913 - a keyword per option
    files: str | Path | Sequence[str | Path],
    *,
    text: str | None = None,
    label: str | None = None,
    model: str | None = None,
    suspicious: bool = False,
    tagger: str | None = None,
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
        tagger: token-classification model that finds names of persons, a folder or hub name; none are looked for when
            None.
        encoding: of text files.
        output: new folder for one HTML page that opens offline, and the facts as JSON.
    Returns:
        "files" with the facts of each, "shared" rows of several files, "notes" for the user, and "page".
    Raises:
        DataError: a file that cannot be read, with its line.
        CheckpointError: the output exists or cannot be written.
    """
    given = [files] if isinstance(files, str | Path) else files
    return inspect_files(given, Look(text, label, model, suspicious, tagger, encoding), output)
