"""Verbs that search: settings, prompts, the closed loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.progress import Progress
from tunesmith.recipe.loading import build_settings
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
    resume: bool = False,
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
        resume: go on with what was stopped; it ends as if it had not been.
        progress: where to show progress; bars on a terminal when None.
        **settings: temperature, weights (validation or even), compare.
    Returns:
        The final run, the patterns' runs, and what the unlabelled rows gained.
    Raises:
        TunesmithError: any mistake in recipe, data, model or prompts.
    """
    checked = build_settings(PatternSettings, settings, "patterns")
    place = Path(output).expanduser().absolute()
    return teach(recipe, prompts, unlabelled, place, overrides, checked, progress, resume)
