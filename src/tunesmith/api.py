"""The public verbs: the only door for the command line, the server and the studio."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from tunesmith.core.progress import Progress
from tunesmith.evaluation.comparison import Comparison
from tunesmith.methods.attaching import attach
from tunesmith.methods.dialects import Wanted
from tunesmith.models.delta import Delta
from tunesmith.models.seams import open_seams
from tunesmith.models.tokens import add_tokens
from tunesmith.recipe.loading import build_settings
from tunesmith.runs.answering import Prediction
from tunesmith.runs.contrast import compare
from tunesmith.runs.episode_run import EpisodeRun
from tunesmith.runs.episodes import train_episodes
from tunesmith.runs.examining import Look, inspect_files
from tunesmith.runs.exporting import convert_folder, merge_folders
from tunesmith.runs.inspecting import inspect_recipe, preview_prompts
from tunesmith.runs.merging import merge_verified, unmerge_folder
from tunesmith.runs.mixing import Mix, mix
from tunesmith.runs.rates import find_rate
from tunesmith.runs.run import Run
from tunesmith.runs.training import train_recipe
from tunesmith.runs.words import prompt_words
from tunesmith.search.advisor import auto, plan
from tunesmith.search.comparing import rank_prompts as rank_files
from tunesmith.search.learning_curve import CurveSettings, measure_curve
from tunesmith.search.loop_wanted import LoopSettings
from tunesmith.search.looping import go_round
from tunesmith.search.patterns import PatternSettings, Taught
from tunesmith.search.patterns import exploit_patterns as teach
from tunesmith.search.ranking import Ranking
from tunesmith.search.searching import SearchSettings, read_options
from tunesmith.search.searching import search_prompts as search
from tunesmith.search.settings import search_settings as search_space
from tunesmith.search.wanted import TuningSettings

__all__ = [
    "Comparison",
    "Delta",
    "EpisodeRun",
    "Mix",
    "Prediction",
    "Run",
    "add_tokens",
    "attach",
    "auto",
    "compare",
    "convert",
    "episodes",
    "exploit_patterns",
    "inspect",
    "inspect_data",
    "learning_curve",
    "loop",
    "lr_range",
    "merge",
    "merge_deltas",
    "mix",
    "plan",
    "prompt_words",
    "rank_prompts",
    "route",
    "search_prompts",
    "search_settings",
    "show_prompts",
    "train",
    "unmerge",
]


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
    progress: Progress | None = None,
) -> EpisodeRun:
    """Learn to learn from a few examples: train on episodes of some classes, score on episodes of others.

    Args:
        recipe: a YAML file, or a mapping with the same keys; its keys are those of docs/fewshot.md.
        overrides: `key=value` texts that win over the recipe, for example "learner.order=second".
        overwrite: replace an existing run.
        progress: where to show progress; bars on a terminal when None.
    Returns:
        The run; its `answer` solves a new task from examples.
    Raises:
        TunesmithError: any mistake in recipe, data or model, with what to do about it.
    """
    return EpisodeRun(train_episodes(recipe, overrides, overwrite, progress))


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


def rank_prompts(
    recipe: str | Path | Mapping[str, Any],
    prompts: Sequence[str | Path],
    overrides: Sequence[str] = (),
    *,
    output: str | Path | None = None,
    metric: str | None = None,
) -> Ranking:
    """Score prompts on validation rows: intervals, paired tests against the best and the first, ensembles, diversity.

    Args:
        recipe: of the task prompt-classification; test is not read.
        prompts: prompt files, the one in use first.
        overrides: `key=value` texts that win over the recipe.
        output: new folder for ranking.json, ranking.md and report.html; None writes nothing.
        metric: that ranks; the task's first when None.
    Returns:
        The ranking, the best first.
    Raises:
        TunesmithError: any mistake in recipe, data, model or prompts.
    """
    return rank_files(recipe, prompts, overrides, None if output is None else Path(output).expanduser(), metric)


def search_prompts(
    recipe: str | Path | Mapping[str, Any],
    budget: str | int,
    output: str | Path,
    overrides: Sequence[str] = (),
    *,
    resume: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Search a better prompt within a budget; the gain is measured on rows that did not choose it.

    Args:
        recipe: of the task prompt-classification; its prompt is the start; test is not read.
        budget: evaluations (200), or a time ("60s").
        output: study folder; prompt.yaml in it is the result.
        overrides: `key=value` texts that win over the recipe; `search.key=value` ones are settings of the search.
        resume: go on with a search that was stopped; it ends as if it had not been.
        progress: where to show progress; bars on a terminal when None.
        **settings: strategy, strategy_settings, edits, metric, measure, rows, glossary, writer.
    Returns:
        Scores of start and found prompt, the gain with its interval, and what it cost.
    Raises:
        TunesmithError: any mistake in recipe, data, model, budget or settings.
    """
    rest, checked = read_options(overrides, settings, SearchSettings)
    return search(recipe, rest, budget, Path(output).expanduser(), checked, resume, progress)


def search_settings(
    recipe: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    budget: str | int | None = None,
    trials: int | None = None,
    resume: bool = False,
    join: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Search the fields of a recipe that hold choices or ranges; the best run is scored once on test, at the end.

    Args:
        recipe: a YAML file, or a mapping with the same keys; its output is the study folder.
        overrides: `key=value` texts that win over the recipe; `search.key=value` ones are settings of the search.
        budget: a time ("10m"), or a number of trials.
        trials: most trials; with a time, what ends first counts. [count]
        resume: go on with a study that was stopped; it ends as if it had not been.
        join: take trials of a study that another process searches now, with the same recipe, data and budget.
        progress: where to show progress; bars on a terminal when None.
        **settings: strategy, strategy_settings, metric, width, workers, pool, pool_settings.
    Returns:
        The best trial, its scores with intervals, and where its run is.
    Raises:
        TunesmithError: any mistake in recipe, space, data, model, budget or settings.
    """
    rest, checked = read_options(overrides, settings, TuningSettings)
    return search_space(recipe, rest, (budget, trials), checked, (resume, join), progress)


def learning_curve(
    recipe: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    output: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Train a recipe on growing shares of its training rows, and say what twice the rows would give.

    Args:
        recipe: a YAML file, or a mapping with the same keys; validation rows score it, test is not read.
        overrides: `key=value` texts that win over the recipe; `search.key=value` ones are settings of the curve.
        output: new folder for learning-curve.json, learning-curve.md and report.html; None writes nothing.
        resume: go on with a curve that was stopped; it ends as if it had not been.
        progress: where to show progress; bars on a terminal when None.
        **settings: points, repeats, smallest, metric, width.
    Returns:
        "points" with intervals, the "law" through them, the score "ahead" with twice the rows, and its "gain".
    Raises:
        TunesmithError: any mistake in recipe, data, model, settings or folder.
    """
    rest, checked = read_options(overrides, settings, CurveSettings)
    folder = None if output is None else Path(output).expanduser()
    return measure_curve(recipe, rest, checked, folder, resume, progress)


def loop(
    recipe: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    budget: str | int | None = None,
    trials: int | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Close the loop: try what suits the task, look at the errors, adjust, until the budget ends or nothing is gained.

    Args:
        recipe: a YAML file, or a mapping with the same keys; its output is the loop's folder.
        overrides: `key=value` texts that win over the recipe; `search.key=value` ones are settings of the loop.
        budget: a time ("10m"), or a number of attempts.
        trials: most attempts; with a time, what ends first counts. [count]
        resume: go on with a loop that was stopped.
        progress: where to show progress; bars on a terminal when None.
        **settings: metric, width, level, patience, measure.
    Returns:
        The best recipe's changes, every decision, scores with intervals, and where the run is.
    Raises:
        TunesmithError: any mistake in recipe, data, model, budget or settings.
    """
    rest, checked = read_options(overrides, settings, LoopSettings)
    return go_round(recipe, rest, (budget, trials), checked, resume, progress)


def exploit_patterns(
    recipe: str | Path | Mapping[str, Any],
    prompts: Sequence[str | Path],
    unlabelled: str | Path,
    output: str | Path,
    overrides: Sequence[str] = (),
    *,
    progress: Progress | None = None,
    **settings: Any,
) -> Taught:
    """Tune several prompts, let them label rows softly, and train the recipe on those rows too.

    Args:
        recipe: of the final run, a task with labels.
        prompts: prompt files, one per pattern.
        unlabelled: data file with the recipe's text column.
        output: new folder for all runs.
        overrides: `key=value` texts that win over the recipe.
        progress: where to show progress; bars on a terminal when None.
        **settings: temperature, weights (validation or even), compare.
    Returns:
        The final run, the patterns' runs, and what the unlabelled rows gained.
    Raises:
        TunesmithError: any mistake in recipe, data, model or prompts.
    """
    checked = build_settings(PatternSettings, settings, "patterns")
    return teach(recipe, prompts, unlabelled, Path(output).expanduser().absolute(), overrides, checked, progress)
