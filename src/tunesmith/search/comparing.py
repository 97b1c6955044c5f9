"""Rank prompt files on the validation rows of a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from tunesmith.core.errors import RecipeError
from tunesmith.evaluation.predictions import Predictions
from tunesmith.prompts.prompt import Prompt
from tunesmith.runs.folder import check_new, staged
from tunesmith.search.opening import open_prompts
from tunesmith.search.prompts import answers
from tunesmith.search.ranking import ENSEMBLES, Ranking, rank, write_ranking


def rank_prompts(
    recipe: str | Path | Mapping[str, Any],
    prompts: Sequence[str | Path],
    overrides: Sequence[str],
    output: Path | None,
    metric: str | None = None,
) -> Ranking:
    """Score prompt files on validation rows and compare them.

    Args:
        recipe: of the task prompt-classification; its own prompt is not ranked.
        prompts: prompt files, the one in use first.
        overrides: `key=value` texts that win over the recipe.
        output: new folder for the ranking; None writes nothing.
        metric: that ranks; the task's first when None.
    Returns:
        The ranking.
    Raises:
        TunesmithError: anything wrong with recipe, data, model or prompts.
    """
    named = read_prompts(prompts)
    if output is not None:
        check_new(output)
    opened = open_prompts(recipe, overrides)
    judged, rows = opened.judged(metric), opened.validation
    found, notes = dict[str, Predictions](), dict[str, str]()
    for name, prompt in named.items():
        try:
            prompt.check_labels(opened.labels)
            found[name] = answers(opened.score, prompt, rows.rows, opened.labels, rows.truth)
        except RecipeError as error:
            raise RecipeError(f"{name}: {error}") from None
        notes[name] = f"{opened.scorer.tokens(prompt, rows.rows[0])} tokens on the first row"
    ranking = rank(found, judged, notes, opened.corpus.warnings)
    if output is not None:
        with staged(output) as folder:
            write_ranking(ranking, folder)
    return ranking


def read_prompts(paths: Sequence[str | Path]) -> dict[str, Prompt]:
    """Read prompt files.

    Args:
        paths: at least one.
    Returns:
        Prompts by the shortest name that tells them apart: the file's, or its whole path.
    Raises:
        RecipeError: none, one that cannot be read, or the same twice, be it in two files.
    """
    if not paths:
        raise RecipeError("prompts: give at least one prompt file.")
    stems = [Path(path).stem for path in paths]
    clear = len(set(stems)) == len(stems) and not set(stems) & set(ENSEMBLES)
    names = stems if clear else [str(path) for path in paths]
    again = next((name for name in names if names.count(name) > 1), None)
    if again is not None:
        raise RecipeError(f"prompts: {again} is given twice; give every prompt once.")
    found = {name: Prompt.read(path) for name, path in zip(names, paths, strict=True)}
    for one, other in combinations(found, 2):
        if found[one].model_dump() == found[other].model_dump():
            raise RecipeError(
                f"prompts: {one} and {other} hold the same prompt, which would count twice; leave one out."
            )
    return found
