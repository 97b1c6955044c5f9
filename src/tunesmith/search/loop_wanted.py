"""What a closed loop is asked for: a recipe without open fields, a metric, and rows that choose nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.errors import RecipeError
from tunesmith.core.files import hash_of
from tunesmith.core.seeds import derived
from tunesmith.core.settings import Settings, setting
from tunesmith.evaluation.statistics import Bootstrap
from tunesmith.recipe.loading import Checked, load_recipe
from tunesmith.search.changes import words_of
from tunesmith.search.wanted import deciding, keeping_by, read_closed

FORMAT = 2  # of a loop's folder


class LoopSettings(Settings):
    """How a closed loop goes."""

    metric: str | None = setting(None, "What decides; the recipe's training.best when empty.")
    width: int = setting(8, "Changes that are tried in one round, at most.", unit="count", ge=1)
    level: float = setting(
        0.1, "A change is kept where a paired test shows a gain at this level, all tests of a round corrected.",
        unit="fraction", gt=0, lt=1,
    )  # fmt: skip
    patience: int = setting(2, "Rounds in a row without a gain after which the loop ends.", unit="count", ge=1)
    members: int = setting(
        3, "Seeds of the best recipe whose answers are averaged in the last run, at most; fewer where time is short.",
        unit="count", ge=1,
    )  # fmt: skip
    leave: float = setting(
        0.5, "Share of its epochs after which a change that is behind the median of its round leaves; none does at 1.",
        unit="fraction", gt=0, le=1,
    )  # fmt: skip
    prompt_share: float = setting(
        0.1, "Share of the budget that searching a prompt may take, where the task asks one; 0 for no search.",
        unit="fraction", ge=0, lt=1,
    )  # fmt: skip
    use_validation: bool = setting(True, "Whether validation rows train in the last run, once they have chosen.")
    measure: float = setting(
        0.1, "Share of train that is held out as test where the recipe has none.", unit="fraction", gt=0, lt=0.9
    )


@dataclass(frozen=True)
class LoopWanted:
    """What is asked for.

    Args:
        recipe: a YAML file, or a mapping with the same keys.
        overrides: `key=value` texts of every attempt.
        metric: that decides.
        higher_is_better: its direction.
        output: the loop's folder.
        bootstrap: of the paired tests.
        held_out: whether the loop itself held test out of train.
    """

    recipe: str | Path | Mapping[str, Any]
    overrides: Sequence[str]
    metric: str
    higher_is_better: bool
    output: Path
    bootstrap: Bootstrap
    held_out: bool

    def load(self, values: Mapping[str, Any]) -> Checked:
        """Check the recipe of an attempt.

        Args:
            values: that differ from the recipe as written, by dotted key.
        Returns:
            The recipe.
        Raises:
            RecipeError: it cannot be carried out.
        """
        return load_recipe(self.recipe, [*self.overrides, *words_of(values)])

    def identity_of(self, values: Mapping[str, Any]) -> str:
        """Tell recipes apart.

        Args:
            values: that differ from the recipe as written, by dotted key.
        Returns:
            The same for recipes that are the same when written out; of the values alone where they make none.
        """
        try:
            return hash_of(self.load(values).resolved())
        except RecipeError:
            return hash_of(dict(values))


def read_loop(recipe: str | Path | Mapping[str, Any], overrides: Sequence[str], settings: LoopSettings) -> LoopWanted:
    """Read what is asked for, and refuse what no loop could go round.

    Args:
        recipe: a YAML file, or a mapping with the same keys.
        overrides: `key=value` texts.
        settings: of the loop.
    Returns:
        What is asked for.
    Raises:
        RecipeError: no validation rows, candidates, a metric that is none or that the loop cannot compare by.
    """
    fixed = [*overrides, *keeping_by(settings.metric)]
    checked = read_closed(recipe, fixed, settings.metric, ("a loop", "chooses by"))
    held_out = checked.recipe.data.test is None
    if held_out:
        fixed.append(f"data.test={settings.measure}")
        load_recipe(recipe, fixed)
    metric, higher = deciding(checked, settings.metric)
    evaluation = checked.recipe.evaluation
    return LoopWanted(
        recipe,
        fixed,
        metric,
        higher,
        Path(checked.recipe.output).expanduser().absolute(),
        Bootstrap(evaluation.resamples, evaluation.confidence, derived(checked.recipe.seed, "bootstrap")),
        held_out,
    )


def facts_of(wanted: LoopWanted, settings: LoopSettings) -> dict[str, Any]:
    """Return what has to be the same when a loop goes on.

    Args:
        wanted: what is asked for.
        settings: of the loop.
    Returns:
        Plain values.
    """
    values = wanted.load({}).resolved()
    values.pop("output")
    return {"format": FORMAT, "recipe": hash_of(values), "metric": wanted.metric, **settings.model_dump(mode="json")}
