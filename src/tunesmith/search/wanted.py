"""What a search of settings is asked for: a recipe with open fields, a strategy, a metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator

from tunesmith.core.errors import RecipeError
from tunesmith.core.files import hash_of
from tunesmith.core.registry import find
from tunesmith.core.settings import Settings, setting
from tunesmith.fewshot.choosers.auto import Auto
from tunesmith.recipe.loading import Checked, build_component, load_recipe
from tunesmith.search.budget import Budget
from tunesmith.search.pools.base import Pool
from tunesmith.search.rules import Rule, broken_by_all, read_rules
from tunesmith.search.space import Choices, Space, read_space
from tunesmith.search.strategies.base import build_strategy
from tunesmith.search.strategies.sampling import Sampling
from tunesmith.search.warm_start import Warm, read_warm


class TuningSettings(Settings):
    """How settings are searched."""

    strategy: str = setting("tpe", "Registered strategy for settings.")
    strategy_settings: dict[str, Any] = setting({}, "Its settings.")
    metric: str | None = setting(None, "What decides; the recipe's training.best when empty.")
    width: int = setting(8, "Candidates that train together, where they fit into memory.", unit="count", ge=1)
    warm_start: tuple[str, ...] = setting((), "Folders of earlier studies, whose best settings are tried first.")
    warm_each: int = setting(3, "Best settings that are taken of each of them.", unit="count", ge=1)
    choose: Literal["best", "one-standard-error"] = setting(
        "best", "Take the best trial, or the cheapest one whose score is within one standard error of the best."
    )
    rules: tuple[str, ...] = setting(
        (), "What the trial that is taken has to keep to on validation, for example 'recall >= 0.9' or 'epochs <= 3'."
    )
    workers: int = setting(1, "Processes that train side by side, each so many candidates.", unit="count", ge=1)
    pool: str = setting("local", "Registered pool that the workers run in.")
    pool_settings: dict[str, Any] = setting({}, "Its settings.")

    @field_validator("rules", "warm_start", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


@dataclass(frozen=True)
class Wanted:
    """What is searched.

    Args:
        recipe: a YAML file, or a mapping with the same keys.
        overrides: `key=value` texts of every trial.
        space: the open fields.
        strategy: that searches.
        metric: that decides.
        higher_is_better: its direction.
        epochs: most of any trial. [count]
        seed: of the search.
        output: study folder.
        identity: hash of the recipe as written, but for its output.
        warm: the first trials, from earlier studies.
        every_fold: whether a trial is scored by the mean over all folds of `data.folds`.
        rules: that the trial which is taken keeps to.
        able: recipes of the ends of the open fields, those that can be carried out.
        unable: a sentence about each of the others.
    """

    recipe: str | Path | Mapping[str, Any]
    overrides: Sequence[str]
    space: Space
    strategy: Sampling
    metric: str
    higher_is_better: bool
    epochs: int
    seed: int
    output: Path
    identity: str
    warm: Warm = field(default_factory=Warm)
    every_fold: bool = False
    rules: Sequence[Rule] = ()
    able: Sequence[Checked] = ()
    unable: Sequence[str] = ()

    def load(self, own: Sequence[str]) -> Checked:
        """Check the recipe of a trial.

        Args:
            own: overrides of the trial.
        Returns:
            The recipe.
        Raises:
            RecipeError: it cannot be carried out.
        """
        checked = load_recipe(self.recipe, [*self.overrides, *own])
        if isinstance(checked.method, Auto):
            raise RecipeError("method: auto searches by itself. Name methods.")
        return checked


def keeping_by(metric: str | None) -> list[str]:
    """Let trials keep their best epoch by the metric that decides.

    Args:
        metric: `search.metric`; None where the recipe's own decides.
    Returns:
        `key=value` texts for the recipe.
    Raises:
        RecipeError: a word that is no metric.
    """
    if metric in ("auto", "last"):
        raise RecipeError(
            f"search.metric: '{metric}' says which epoch is kept and is no metric. Name one, for example accuracy, or "
            "leave search.metric out."
        )
    return [] if metric is None else [f"training.best={metric}"]


def _kept_by(space: Space, metric: str | None) -> tuple[Space, list[str]]:
    """Let trials keep their best epoch by the metric that decides, also where the whole of training is open."""
    words, whole = keeping_by(metric), space.nodes.get("training")
    if not words or not isinstance(whole, Choices):
        return space, words
    options = {
        label: {**option, "best": metric} if isinstance(option, Mapping) else option
        for label, option in whole.options.items()
    }
    return Space({**space.nodes, "training": Choices(whole.name, options)}), []


def deciding(checked: Checked, metric: str | None) -> tuple[str, bool]:
    """Name the score that decides.

    Args:
        checked: recipe of a trial.
        metric: `search.metric`; None where the recipe's own decides.
    Returns:
        Its name, and whether higher is better.
    """
    best = checked.recipe.training.best
    name = metric or (checked.task.metrics[0] if best in ("auto", "last") else best)
    return name, name != "validation loss" and find("metrics", name).higher_is_better


def read_closed(
    recipe: str | Path | Mapping[str, Any], overrides: Sequence[str], metric: str | None, who: tuple[str, str]
) -> Checked:
    """Read a recipe in which nothing is open, of which something makes variants that validation rows score.

    Args:
        recipe: a YAML file, or a mapping with the same keys.
        overrides: `key=value` texts.
        metric: `search.metric`; None where the recipe's own decides.
        who: makes them, and does what with validation rows, for messages.
    Returns:
        The recipe.
    Raises:
        RecipeError: no validation rows, candidates, or a metric that is none or reads written answers.
    """
    try:
        checked = load_recipe(recipe, overrides)
    except RecipeError as error:
        _check_metric(problems_of(error), metric)
        raise
    if isinstance(checked.method, Auto) or checked.candidates:
        key = "candidates" if checked.candidates else "method: auto"
        raise RecipeError(f"{key}: {who[0]} makes its own candidates. Name one method, and leave candidates out.")
    if checked.recipe.data.validation is None and checked.recipe.data.folds is None:
        raise RecipeError(f"data.validation: {' '.join(who)} validation rows, and there are none. Give a share.")
    name, _ = deciding(checked, metric)
    if name != "validation loss" and find("metrics", name).reads == "answers":
        raise RecipeError(
            f"search.metric: {name} reads answers, which are written once, at the end, and not for every attempt. "
            "Choose perplexity or nats-per-token."
        )
    return checked


def read_wanted(recipe: str | Path | Mapping[str, Any], overrides: Sequence[str], settings: TuningSettings) -> Wanted:
    """Read what is searched, and refuse what no trial could be.

    Args:
        recipe: with open fields.
        overrides: `key=value` texts.
        settings: of the search.
    Returns:
        What is searched.
    Raises:
        RecipeError: nothing is open, a choice cannot be, no point can be carried out, or the task lacks the metric.
    """
    strategy = build_strategy(settings.strategy, settings.strategy_settings, "settings")
    space, values = read_space(recipe, overrides)
    seed = values.get("seed", 0) if "seed" not in space.nodes else 0
    data = values.get("data")
    fixed = list(overrides)
    strategy.check(space)
    if ("seed" in space.nodes or strategy.continues) and isinstance(data, Mapping) and data.get("seed") is None:
        fixed.append(f"data.seed={seed}")  # trials share the rows that choose
    for key in ("candidates", "ensemble"):
        if values.get(key):
            raise RecipeError(f"{key}: a search makes candidates itself. Leave it out, and train the best one with it.")
    space, kept = _kept_by(space, settings.metric)
    fixed.extend(kept)
    draft = Wanted(recipe, fixed, space, strategy, "", True, 1, 0, Path(), "")
    able, unable = _tried(draft, settings.metric)
    first = able[0]
    if first.recipe.data.validation is None and first.recipe.data.folds is None:
        raise RecipeError("data.validation: a search chooses by validation rows, and there are none. Give a share.")
    metric, higher = deciding(first, settings.metric)
    if metric == "validation loss" and settings.choose != "best":
        raise RecipeError(
            "search.choose: one-standard-error needs a score with an interval, which validation loss has not. Name "
            "search.metric, for example log-loss."
        )
    rules = read_rules(settings.rules, _scored_by(first))
    inner = space.parameters().keys() - space.nodes.keys()  # open inside of an option, of which one value was tried
    rule = None if any(name.endswith(".epochs") for name in inner) else broken_by_all(rules, able)
    if rule is not None:
        raise RecipeError(
            f"search.rules: every point of the space breaks '{rule}'. Change the rule, or training.epochs."
        )
    return replace(
        draft,
        warm=read_warm(
            settings.warm_start, settings.warm_each, space, strategy.ahead(0) if strategy.continues else None
        ),
        metric=metric,
        higher_is_better=higher,
        epochs=max(one.recipe.training.epochs for one in able),
        seed=seed,
        output=Path(first.recipe.output).expanduser().absolute(),
        every_fold=_every_fold(data, strategy),
        rules=rules,
        identity=hash_of({key: value for key, value in values.items() if key != "output"}),
        able=able,
        unable=unable,
    )


def problems_of(error: RecipeError) -> list[str]:
    """List what a recipe is refused for.

    Args:
        error: the refusal.
    Returns:
        Its lines, without that they come from the command line: nobody wrote the recipe of a trial there.
    """
    return [line.strip().removeprefix("command line: ") for line in str(error).splitlines()]


def _check_metric(problems: Sequence[str], metric: str | None) -> None:
    """Say of what a recipe is refused for that it is the metric that was asked for."""
    line = next((one for one in problems if one.startswith("training.best:")), None)
    if metric is not None and line is not None:
        raise RecipeError(f"search.metric: {line.removeprefix('training.best: ')}") from None


def _scored_by(checked: Checked) -> list[str]:
    """Name the metrics that every trial is scored by on validation rows."""
    names = checked.recipe.evaluation.metrics or checked.task.metrics
    return [name for name in names if find("metrics", name).reads != "answers"]


def _every_fold(data: Any, strategy: Sampling) -> bool:
    """Say whether all folds score a trial: unless the recipe names one of them."""
    if not isinstance(data, Mapping) or data.get("folds") is None or data.get("fold") is not None:
        return False
    if strategy.continues:
        raise RecipeError(
            f"data.folds: trials of the strategy {strategy.name} go on from one delta, which a trial on several folds "
            "does not have. Name one fold (data.fold=0), give a share data.validation, or take tpe."
        )
    return True


def _tried(wanted: Wanted, metric: str | None) -> tuple[list[Checked], list[str]]:
    """Try every end of every open field; refuse values that are wrong by themselves, and name what cannot be tried."""
    able, unable, said = list[Checked](), list[str](), ""
    for path, own in wanted.space.ends():
        try:
            able.append(wanted.load(own))
        except RecipeError as error:
            said = str(error)
            problems = problems_of(error)
            mine = [line for line in problems if _by_itself(line, path)]
            if mine:
                raise RecipeError(f"a value of the space is wrong, nothing was loaded.\n  {mine[0]}") from None
            _check_metric(problems, metric)
            unable.append(f"Trials of {' '.join(own)} will fail: {'; '.join(problems[1:] or problems)}")
    if not able:
        raise RecipeError(f"every point of the space fails, nothing was loaded. One of them: {said}")
    return able, list(dict.fromkeys(unable))


def _by_itself(problem: str, path: str) -> bool:
    """Say whether a recipe is refused for a field's value whatever the others are; names are refused a key above it."""
    named = f" {path.removesuffix('.name')}: unknown "  # may stand behind the line of the recipe that the key is in
    return problem.startswith((f"{path}:", f"{path}.")) or named in f" {problem}"


def hands_of(settings: TuningSettings) -> tuple[Pool, int] | None:
    """Find the pool that trains, and say how many workers it has.

    Args:
        settings: of the search.
    Returns:
        Pool and number; None where this process trains by itself.
    Raises:
        RecipeError: no such pool, or one without room for the workers.
        MissingDependency: what it runs on is not installed.
    """
    pool: Pool = build_component("pools", settings.pool, settings.pool_settings)
    pool.check(settings.workers)
    return None if settings.workers == 1 and not pool.remote else (pool, settings.workers)


def facts_of(wanted: Wanted, settings: TuningSettings) -> dict[str, Any]:
    """Return what has to be the same when a study goes on.

    Args:
        wanted: what is searched.
        settings: of the search.
    Returns:
        Plain values.
    """
    return {
        "recipe": wanted.identity,
        "space": {path: str(node) for path, node in wanted.space.nodes.items()},
        "strategy": wanted.strategy.describe(),
        "metric": wanted.metric,
        "seed": wanted.seed,
        "width": settings.width,
        **({"warm start": list(wanted.warm.points)} if wanted.warm.points else {}),
        **({"every_fold": True} if wanted.every_fold else {}),
        **({"output": str(wanted.output)} if wanted.strategy.continues else {}),  # trials name runs in it
    }


def agreed_of(settings: TuningSettings, budget: Budget) -> dict[str, Any]:
    """Return what may change when a study goes on, but is the same in all processes that share it.

    Args:
        settings: of the search.
        budget: of all processes together.
    Returns:
        Plain values.
    """
    return {"budget": budget.plain(), "search.choose": settings.choose, "search.rules": list(settings.rules)}
