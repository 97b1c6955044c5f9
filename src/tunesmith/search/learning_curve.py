"""A learning curve: one recipe on growing shares of its training rows, and what more rows would give."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.core.errors import DataError, RecipeError, TunesmithError
from tunesmith.core.progress import Progress
from tunesmith.core.seeds import derived
from tunesmith.core.settings import Settings, setting
from tunesmith.data.splitting import Index, stratified_order
from tunesmith.evaluation.learning_curve import Growth, Scores
from tunesmith.evaluation.metrics.base import Metric
from tunesmith.evaluation.predictions import Predictions
from tunesmith.evaluation.statistics import Bootstrap, Resampled, Result
from tunesmith.recipe.loading import Checked, load_recipe
from tunesmith.runs.family import Family
from tunesmith.runs.folder import check_new, staged
from tunesmith.search.answering import compared_by
from tunesmith.search.learning_curve_report import write_curve_report
from tunesmith.search.passes import Passes
from tunesmith.search.trials import Outcome
from tunesmith.search.wanted import deciding, keeping_by, read_closed
from tunesmith.training.trial import Trial

_TIMES = 2.0  # all rows, that are looked ahead to
_LEAST = 2  # rows of a label, on average, in the smallest share
_FEWEST = 3  # sizes


class CurveSettings(Settings):
    """How a learning curve is measured."""

    points: int = setting(5, "Sizes, each larger than the one before by the same factor.", unit="count", ge=3, le=20)
    repeats: int = setting(3, "Draws of rows, each with a seed of its own.", unit="count", ge=2, le=50)
    smallest: float = setting(0.0625, "Share of the training rows that is tried first.", unit="fraction", gt=0, lt=1)
    metric: str | None = setting(None, "What is drawn; the recipe's training.best when empty.")
    width: int = setting(8, "Shares that train together, where they fit into memory.", unit="count", ge=1)


@dataclass(frozen=True)
class _Share:
    """A part of the training rows.

    Args:
        size: its place among the sizes.
        repeat: its draw.
        rows: numbers of its rows.
    """

    size: int
    repeat: int
    rows: Index


@dataclass
class _Measuring:
    """Trains the shares.

    Args:
        recipe: a YAML file, or a mapping with the same keys.
        overrides: `key=value` texts of all.
        checked: the recipe with them.
        settings: of the curve.
        progress: for the user.
        found: what a share scored on resamples of the validation rows, by number.
        outcomes: of the trainings, by number.
        by: what shares are scored by, once one was.
    """

    recipe: str | Path | Mapping[str, Any]
    overrides: Sequence[str]
    checked: Checked
    settings: CurveSettings
    progress: Progress
    found: dict[int, Resampled] = field(default_factory=dict)
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    by: Metric | None = None

    def __post_init__(self) -> None:
        self.metric, self.higher_is_better = deciding(self.checked, self.settings.metric)
        self.passes = Passes(self.metric, self.progress, keep=self._keep)

    def carry_out(self) -> tuple[list[int], Scores, Bootstrap]:
        """Train every share of every draw.

        Returns:
            The sizes, their scores, and how intervals are taken.
        Raises:
            DataError: too few rows.
            TunesmithError: a share cannot be trained.
        """
        began, family = time.perf_counter(), self.passes.family_of(self.checked)
        shares, sizes = self._shares(family)
        self.passes.rows = {number: share.rows for number, share in enumerate(shares)}
        for first in range(0, len(shares), self.settings.width):
            some = range(first, min(first + self.settings.width, len(shares)))
            self.outcomes |= self.passes.carry_out({one: self._recipe(shares[one]) for one in some}, lambda *_: False)
            for number in some:
                self._check(shares[number], self.outcomes[number])
            seconds = time.perf_counter() - began
            self.progress.say(f"{len(self.outcomes)} of {len(shares)} shares trained, {seconds:.0f} s")
        order = sorted(range(len(shares)), key=lambda number: (shares[number].size, shares[number].repeat))
        shape = len(sizes), self.settings.repeats
        assert self.by is not None
        scores = Scores(
            np.array(sizes, np.float64),
            np.array([self.found[number].value for number in order]).reshape(shape),
            np.stack([self.found[number].table for number in order]).reshape(*shape, -1),
            self.by.range,
            self.higher_is_better,
        )
        return sizes, scores, family.judge.bootstrap

    def _shares(self, family: Family) -> tuple[list[_Share], list[int]]:
        """Draw nested shares, the largest first: it decides how many fit into memory."""
        labels, wanted = family.corpus.splits["train"].labels, self.settings
        rows, least = len(labels), _LEAST * len(np.unique(labels))
        smallest = max(least, round(wanted.smallest * rows), 2)
        sizes = np.unique(np.geomspace(min(smallest, rows), rows, wanted.points).round().astype(int))
        if len(sizes) < _FEWEST:
            raise DataError(
                f"train holds {rows} rows; a learning curve needs {_FEWEST} different sizes from {smallest} rows on "
                f"({_LEAST} of a label, or search.smallest). Add rows."
            )
        orders = [
            stratified_order(labels, derived(self.checked.recipe.seed, f"learning curve {repeat}"))
            for repeat in range(wanted.repeats)
        ]
        shares = [
            _Share(size, repeat, np.sort(order[: sizes[size]]))
            for size in reversed(range(len(sizes)))
            for repeat, order in enumerate(orders)
        ]
        return shares, [int(size) for size in sizes]

    def _recipe(self, share: _Share) -> Checked:
        """Return the recipe with the seed of a draw; the first one keeps the recipe's own."""
        recipe = self.checked.recipe
        seeds = [f"seed={(recipe.seed + share.repeat) % 2**32}", f"data.seed={recipe.split_seed}"]
        return load_recipe(self.recipe, [*self.overrides, *(seeds if share.repeat else [])])

    def _keep(self, number: int, family: Family, trial: Trial, result: Result) -> None:
        """Score a share on resamples of the validation rows, the same ones for all."""
        self.by = compared_by(self.metric, isinstance(result, Predictions))
        self.found[number] = Resampled.of(result, self.by, family.judge.bootstrap)

    def _check(self, share: _Share, outcome: Outcome) -> None:
        if outcome.state == "failed":
            raise TunesmithError(
                f"the recipe cannot be trained on {len(share.rows)} rows (draw {share.repeat + 1}): {outcome.reason}"
            )


def measure_curve(
    recipe: str | Path | Mapping[str, Any],
    overrides: Sequence[str],
    settings: CurveSettings,
    output: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train a recipe on nested, stratified shares of its training rows, and fit a power law through the scores.

    Args:
        recipe: a YAML file, or a mapping with the same keys.
        overrides: `key=value` texts that win over the recipe.
        settings: of the curve.
        output: new folder for numbers and report; None for none.
        progress: for the user.
    Returns:
        What was found, as in learning-curve.json.
    Raises:
        TunesmithError: anything wrong with recipe, data, model or folder.
    """
    fixed, progress = [*overrides, *keeping_by(settings.metric)], progress or Progress()
    checked = read_closed(recipe, fixed, settings.metric, ("a learning curve", "is scored on"))
    if not checked.method.trains:
        raise RecipeError(
            f"method: {checked.method.name} trains nothing, so more rows change nothing. Name a method that trains, "
            "for example method=lora."
        )
    if output is not None:
        check_new(output)
    began, measuring = time.perf_counter(), _Measuring(recipe, fixed, checked, settings, progress)
    sizes, scores, bootstrap = measuring.carry_out()
    growth = scores.growth(_TIMES, bootstrap)
    result = _told(measuring, sizes, scores, growth)
    result |= {"confidence": bootstrap.confidence, "seconds": time.perf_counter() - began}
    if output is not None:
        with staged(output) as folder:
            write_curve_report(folder, result, growth, bootstrap.confidence)
        result["report"] = str(output / "report.html")
    return result


def _told(measuring: _Measuring, sizes: Sequence[int], scores: Scores, growth: Growth) -> dict[str, Any]:
    """Return what a curve says as plain values."""
    law = growth.law
    return {
        "metric": measuring.metric,
        "higher_is_better": measuring.higher_is_better,
        "split": "validation",
        "rows": sizes[-1],
        "repeats": measuring.settings.repeats,
        "points": [
            {"rows": size, **point.plain(), "scores": own.tolist()}
            for size, point, own in zip(sizes, growth.points, scores.values, strict=True)
        ],
        "law": {"limit": law.limit[0], "scale": law.scale[0], "exponent": law.exponent[0]},
        "ahead": {"rows": int(growth.more), **growth.ahead.plain()},
        "gain": growth.gain.plain(),
        "clear": growth.clear,
        "check": None if growth.check is None else {"from_rows": sizes[-2], **growth.check.plain()},
        "holds": growth.holds,
    }
