"""A run's calibration: chosen on validation rows, kept in the run, used by every answer, and taken back by a word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.arrays import Array
from tunesmith.core.errors import CheckpointError, DataError, RecipeError
from tunesmith.core.files import read_json, write_json, write_text
from tunesmith.data.tokens import TokenRows
from tunesmith.evaluation.calibration import (
    answered,
    reliability,
    temperature_of,
    threshold_for_coverage,
    threshold_for_precision,
    with_temperature,
)
from tunesmith.evaluation.calibration_page import render_calibration
from tunesmith.evaluation.predictions import Predictions
from tunesmith.evaluation.statistics import Bootstrap, estimate, metrics_by_name, paired_difference
from tunesmith.runs.openings import among_test
from tunesmith.runs.predicted import read_predictions

FILE, PAGE = "calibration.json", "calibration.html"
_METRICS = ("calibration-error", "log-loss")


@dataclass(frozen=True)
class Calibration:
    """How a run's probabilities are changed.

    Args:
        temperature: of the logits.
        threshold: of the highest probability, below which there is no answer; 0 answers all.
    """

    temperature: float
    threshold: float = 0.0

    def applied(self, probabilities: Array) -> Array:
        """Change probabilities.

        Args:
            probabilities: (rows, C).
        Returns:
            (rows, C).
        """
        return with_temperature(probabilities, self.temperature)

    def worded(self) -> str:
        """Say what is changed, and how it is taken back."""
        below = f"; below a probability of {self.threshold:.3f} there is no answer" if self.threshold else ""
        return f"calibrated with temperature {self.temperature:.3f}{below} ({FILE}; tunesmith calibrate --remove)"


@dataclass(frozen=True)
class Calibrating:
    """The run that is calibrated.

    Args:
        folder: of the run.
        labels: in the order of the codes.
        bootstrap: behind the intervals.
    """

    folder: Path
    labels: Sequence[str]
    bootstrap: Bootstrap


def read_calibration(folder: Path) -> Calibration | None:
    """Read a run's calibration.

    Args:
        folder: of the run.
    Returns:
        It; None where the run has none.
    Raises:
        CheckpointError: the file is damaged.
    """
    if not (folder / FILE).is_file():
        return None
    found = read_json(folder / FILE, dict)
    temperature, threshold = found.get("temperature"), found.get("threshold")
    if not isinstance(temperature, int | float) or not isinstance(threshold, int | float) or not temperature > 0:
        raise CheckpointError(
            f"{folder / FILE} is damaged: it must hold a temperature above 0 and a threshold. Calibrate again, or "
            "remove the file."
        )
    return Calibration(float(temperature), float(threshold))


def forget_calibration(folder: Path) -> bool:
    """Remove a run's calibration.

    Args:
        folder: of the run.
    Returns:
        Whether there was one.
    """
    found = (folder / FILE).is_file()
    for name in (FILE, PAGE):
        (folder / name).unlink(missing_ok=True)
    return found


def calibrate(
    run: Calibrating,
    given: tuple[str, Predictions, TokenRows] | None,
    precision: float | None,
    coverage: float | None,
) -> dict[str, Any]:
    """Choose temperature and threshold, measure them on test, and keep them in the run.

    Args:
        run: that is calibrated.
        given: file, uncalibrated predictions and rows to choose on; the run's validation rows when None.
        precision: wanted of the answered rows. [fraction]
        coverage: wanted share of answered rows. [fraction]
    Returns:
        Plain values.
    Raises:
        DataError: no rows to choose on, test rows among them, or rows that allow no choice.
        RecipeError: precision or coverage out of bounds, or both.
    """
    _check_wishes(precision, coverage)
    source, rows = _rows(run, given)
    test = _recorded(run, "test")
    temperature = temperature_of(rows)
    scaled = _scaled(rows, temperature)
    threshold = 0.0
    if precision is not None:
        threshold = threshold_for_precision(scaled, precision)
    elif coverage is not None:
        threshold = threshold_for_coverage(scaled, coverage)
    chosen = {"temperature": temperature, "threshold": threshold}
    wanted = {"precision": precision, "coverage": coverage}
    parts = {source: rows, **({"test": test} if test is not None else {})}
    splits = {name: _measured(found, temperature, threshold, run.bootstrap) for name, found in parts.items()}
    result = {**chosen, "wanted": wanted, "fitted_on": source, "fitted_rows": rows.rows, "splits": splits}
    shown = "test" if test is not None else source
    write_text(run.folder / PAGE, render_calibration(result, shown, _scaled(parts[shown], temperature)))
    write_json(run.folder / FILE, result)
    return result


def _check_wishes(precision: float | None, coverage: float | None) -> None:
    if precision is not None and coverage is not None:
        raise RecipeError("precision and coverage decide the same threshold; give one of them.")
    for name, value in (("precision", precision), ("coverage", coverage)):
        if value is not None and not 0 < value <= 1:
            raise RecipeError(
                f"{name}: {value:g} is no share of rows; give a number above 0 and up to 1, for example 0.95."
            )


def _rows(run: Calibrating, given: tuple[str, Predictions, TokenRows] | None) -> tuple[str, Predictions]:
    if given is None:
        found = _recorded(run, "validation")
        if found is None:
            raise DataError(
                f"{run.folder} has no validation rows to calibrate on. Give labelled rows that did not train with "
                "--data FILE; test rows stay for measuring."
            )
        return "validation", found
    source, found, tokens = given
    again = among_test(run.folder, tokens)
    if again:
        raise DataError(
            f"{again} of the {found.rows} rows of {source} are test rows of {run.folder}: what is chosen on them "
            "cannot be measured on them. Give rows that neither trained nor are test rows."
        )
    return source, found


def _recorded(run: Calibrating, split: str) -> Predictions | None:
    summary = read_json(run.folder / "metrics.json", dict)
    if split not in summary["metrics"]:
        return None
    found = read_predictions(run.folder / "predictions.parquet", split, run.labels)[1]
    assert isinstance(found, Predictions)
    return found


def _scaled(found: Predictions, temperature: float) -> Predictions:
    return Predictions(with_temperature(found.probabilities, temperature), found.references)


def _measured(before: Predictions, temperature: float, threshold: float, bootstrap: Bootstrap) -> dict[str, Any]:
    after, metrics = _scaled(before, temperature), metrics_by_name(_METRICS)
    gains = [paired_difference(after, before, metric, bootstrap) for metric in metrics]
    return {
        "rows": before.rows,
        "before": {name: one.plain() for name, one in estimate(before, metrics, bootstrap).items()},
        "after": {name: one.plain() for name, one in estimate(after, metrics, bootstrap).items()},
        "gain": [{"metric": one.metric, **asdict(one.estimate), "p_value": one.p_value} for one in gains],
        "answered": answered(after, threshold, bootstrap.confidence).plain(),
        "all_answered": answered(after, 0.0, bootstrap.confidence).plain(),
        "reliability": {
            "before": [one.plain() for one in reliability(before, bootstrap.confidence)],
            "after": [one.plain() for one in reliability(after, bootstrap.confidence)],
        },
    }
