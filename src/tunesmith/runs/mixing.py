"""A weighted mix of tuned models, say a fully tuned and a prefix-tuned one; validation rows choose the weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.core.arrays import Array
from tunesmith.core.errors import CheckpointError, DataError
from tunesmith.core.files import read_json, write_json
from tunesmith.evaluation.predictions import Predictions
from tunesmith.evaluation.statistics import Estimate, estimate, metrics_by_name
from tunesmith.runs.answering import Answering
from tunesmith.runs.folder import check_free, staged
from tunesmith.runs.run import Run

_FILE = "mix.json"
_ROUNDS = 20_000  # at most
_STILL = 1e-10  # weights that move less than this are found
_SMALLEST = 1e-12  # below any probability that matters; keeps logarithms finite


class Mix(Answering):
    """Runs whose probabilities are added up with weights: p = sum_i w_i p_i.

    Args:
        runs: of the same labels, at least two.
        weights: one per run, not negative, together 1.
    """

    def __init__(self, runs: Sequence[Run], weights: Sequence[float]) -> None:
        self.runs = list(runs)
        self.weights = np.asarray(weights, dtype=np.float64)
        self.labels = self.runs[0].labels

    @classmethod
    def load(cls, folder: str | Path) -> Mix:
        """Open a mix that `mix` wrote.

        Args:
            folder: holds mix.json.
        Returns:
            The mix.
        Raises:
            CheckpointError: it is no mix, or one of its runs is gone.
        """
        facts = read_json(Path(folder) / _FILE, dict)
        if "runs" not in facts or "weights" not in facts:
            raise CheckpointError(f"{Path(folder) / _FILE} is damaged: 'runs' or 'weights' is missing.")
        return cls([Run.load(run) for run in facts["runs"]], facts["weights"])

    def predict_proba(self, texts: str | Sequence[str]) -> Array:
        """Compute the weighted mean of the runs' probabilities, (texts, C).

        Args:
            texts: one or several.
        Returns:
            In the order of `labels`.
        """
        return _mixed([run.predict_proba(texts) for run in self.runs], self.weights)

    def evaluate(self, path: str | Path) -> dict[str, Estimate]:
        """Score the mix on labelled data.

        Args:
            path: a file with the first run's text and label columns.
        Returns:
            Metric to value and interval.
        """
        found = [run.labelled(path, "mix") for run in self.runs]
        return _scores(self.runs[0], _predictions(found, self.weights))


def mix(runs: Sequence[Run | str | Path], data: str, output: str | Path | None = None) -> tuple[Mix, dict[str, Any]]:
    """Choose weights for runs on labelled data that none of them trained on.

    The weights maximise the likelihood of the labels; that problem has one optimum, found by expectation maximisation.

    Args:
        runs: of the same labels, at least two.
        data: labelled validation rows; a test file would make its scores too good.
        output: new folder for mix.json; None writes nothing.
    Returns:
        The mix, and its weights with the scores of every run and of the mix on the data.
    Raises:
        DataError: fewer than two runs, or runs of different labels.
        CheckpointError: the output exists.
    """
    opened = [run if isinstance(run, Run) else Run.load(run) for run in runs]
    if len(opened) < 2:
        raise DataError("a mix takes two or more runs of the same labels; one was given.")
    for run in opened[1:]:
        if run.labels != opened[0].labels:
            differ = sorted(set(run.labels) ^ set(opened[0].labels))[:5]
            raise DataError(
                f"a mix takes runs of the same labels, in the same order; {run.folder} and {opened[0].folder} differ: "
                f"{', '.join(differ) or 'their order'}. Leave one of them out."
            )
    if output is not None:
        check_free(Path(output).expanduser().absolute(), overwrite=False)
    found = [run.labelled(data, "mix") for run in opened]
    weights = likeliest(found)
    facts = {
        "runs": [str(run.folder) for run in opened],
        "weights": weights.tolist(),
        "data": str(Path(data).absolute()),
        "rows": found[0].rows,
        "scores": [_plain(_scores(opened[0], one)) for one in found],
        "mix": _plain(_scores(opened[0], _predictions(found, weights))),
    }
    if output is not None:
        with staged(Path(output).expanduser().absolute()) as folder:
            write_json(folder / _FILE, facts)
    return Mix(opened, weights.tolist()), facts


def _of_references(found: Predictions) -> Array:
    return np.maximum(found.probabilities[np.arange(found.rows), found.references], _SMALLEST)


def likeliest(members: Sequence[Predictions]) -> Array:
    """Choose weights that maximise sum_n log sum_i w_i p_i[n] of the true classes.

    Args:
        members: predictions for the same rows.
    Returns:
        One weight per member, not negative, together 1.
    Source: expectation maximisation, Dempster et al. 1977, JRSS B 39.
    """
    table = np.stack([_of_references(member) for member in members], axis=1)  # (rows, members)
    weights = np.full(table.shape[1], 1 / table.shape[1])
    for _ in range(_ROUNDS):
        shares = table * weights
        before, weights = weights, (shares / shares.sum(axis=1, keepdims=True)).mean(axis=0)
        if np.abs(weights - before).max() < _STILL:
            break
    return weights / weights.sum()


def _mixed(parts: Sequence[Array], weights: Array) -> Array:
    return np.tensordot(weights, np.stack(parts), axes=1)


def _predictions(found: Sequence[Predictions], weights: Array) -> Predictions:
    return Predictions(_mixed([one.probabilities for one in found], weights), found[0].references)


def _scores(run: Run, found: Predictions) -> dict[str, Estimate]:
    settings = run.recipe.recipe.evaluation
    return estimate(found, metrics_by_name(settings.metrics or run.recipe.task.metrics), run.bootstrap)


def _plain(scores: dict[str, Estimate]) -> dict[str, dict[str, float]]:
    return {name: value.plain() for name, value in scores.items()}
