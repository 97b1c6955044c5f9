"""A learning curve: one recipe on growing shares of its training rows, and what more rows would give."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
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
from tunesmith.evaluation.statistics import Bootstrap, Resampled, Result
from tunesmith.recipe.loading import Checked, load_recipe
from tunesmith.runs.family import Family
from tunesmith.runs.labelling import Labelling
from tunesmith.search.answering import compared_by
from tunesmith.search.learning_curve_report import write_curve_report
from tunesmith.search.passes import Passes
from tunesmith.search.reading import read_by
from tunesmith.search.shares_kept import Scored, SharesKept, facts_of
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
        kept: the shares that were trained before, and where others are kept; None for nowhere.
        found: what a share scored, by number.
    """

    recipe: str | Path | Mapping[str, Any]
    overrides: Sequence[str]
    checked: Checked
    settings: CurveSettings
    progress: Progress
    kept: SharesKept | None
    found: dict[int, Scored] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.metric, self.higher_is_better = deciding(self.checked, self.settings.metric)
        self.passes = Passes(self.metric, self.progress, keep=self._keep)
        self.began = time.perf_counter() - (0.0 if self.kept is None else self.kept.ended)

    @property
    def seconds(self) -> float:
        """Of the curve, those before it went on too."""
        return time.perf_counter() - self.began

    def carry_out(self) -> tuple[list[int], Scores, Bootstrap]:
        """Train every share of every draw that was not trained before.

        Returns:
            The sizes, their scores, and how intervals are taken.
        Raises:
            DataError: too few rows.
            CheckpointError: what was trained before came from other data.
            TunesmithError: a share cannot be trained.
        """
        family = self.passes.family_of(self.checked)
        shares, sizes = self._shares(family)
        self.passes.rows = {number: share.rows for number, share in enumerate(shares)}
        numbers, width = range(len(shares)), self.settings.width
        together = [numbers[first : first + width] for first in range(0, len(shares), width)]
        read = read_by(family.corpus, family.session.model_hash)
        self.found = {} if self.kept is None else self.kept.recall(read, together)
        if self.found:
            self.progress.say(f"{len(self.found)} of {len(shares)} shares were trained before")
        for some in together:
            if some[0] not in self.found:
                self._train({number: shares[number] for number in some}, read)
                self.progress.say(f"{len(self.found)} of {len(shares)} shares trained, {self.seconds:.0f} s")
        order = sorted(range(len(shares)), key=lambda number: (shares[number].size, shares[number].repeat))
        shape = len(sizes), self.settings.repeats
        scores = Scores(
            np.array(sizes, np.float64),
            np.array([self.found[number].value for number in order]).reshape(shape),
            np.array([self.found[number].table for number in order], np.float64).reshape(*shape, -1),
            compared_by(self.metric, isinstance(family, Labelling)).range,
            self.higher_is_better,
        )
        return sizes, scores, family.judge.bootstrap

    def _train(self, shares: Mapping[int, _Share], read: Mapping[str, str]) -> None:
        """Train some shares together, and keep what they scored."""
        recipes = {number: self._recipe(share) for number, share in shares.items()}
        for number, outcome in self.passes.carry_out(recipes, lambda *_: False).items():
            self._check(shares[number], outcome)
        if self.kept is not None:
            self.kept.add(self.seconds, read, {number: self.found[number] for number in shares})

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
        by = compared_by(self.metric, isinstance(family, Labelling))
        scored = Resampled(result, by, family.judge.bootstrap)
        self.found[number] = Scored(float(scored.value), scored.table.tolist())

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
    resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train a recipe on nested, stratified shares of its training rows, and fit a power law through the scores.

    Args:
        recipe: a YAML file, or a mapping with the same keys.
        overrides: `key=value` texts that win over the recipe.
        settings: of the curve.
        output: folder for shares, numbers and report; None for none.
        resume: go on with a curve that was stopped.
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
    if resume and output is None:
        raise RecipeError("resume: there is no output to go on in. Name its folder with output, or leave resume out.")
    kept = None if output is None else SharesKept(output, facts_of(checked, settings), resume)
    measuring = _Measuring(recipe, fixed, checked, settings, progress, kept)
    with nullcontext() if kept is None else progress.keeping("the shares", kept.folder):
        sizes, scores, bootstrap = measuring.carry_out()
    growth = scores.growth(_TIMES, bootstrap)
    result = _told(measuring, sizes, scores, growth)
    result |= {"confidence": bootstrap.confidence, "seconds": measuring.seconds}
    if output is not None:
        write_curve_report(output, result, growth, bootstrap.confidence)
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
