"""What comparisons of runs, and calibrations, print for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.cli.show import table_of

if TYPE_CHECKING:
    from tunesmith.api import Comparison


def compared(found: Comparison, output: str | None) -> str:
    """Draw runs and pairs as tables.

    Args:
        found: the comparison.
        output: where the page was written; None where none was.
    Returns:
        Several lines.
    """
    from tunesmith.evaluation.comparison_page import pair_rows, result_rows, sentences

    result, pairs = (_some(*rows) for rows in (result_rows(found), pair_rows(found)))
    page = f"page: {output}/comparison.html" if output else "--output FOLDER writes a page with pictures and examples."
    return "\n".join([*sentences(found), *found.notes, table_of(*result, left=2), table_of(*pairs), page])


def _some(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """Keep what a terminal has room for: no further metrics, no p-values before their correction."""
    kept = [
        at
        for at, head in enumerate(heads)
        if at < 3 or head in ("trained", "training", "peak memory", "p, corrected", "told apart")
    ]
    return [heads[at] for at in kept], [[row[at] for at in kept] for row in rows]


def calibrated(found: dict[str, Any], folder: Path) -> str:
    """Word what a calibration found, or that it was taken back.

    Args:
        found: by `Run.calibrate`, or "removed".
        folder: of the run.
    Returns:
        Several lines.
    """
    if "removed" in found:
        return "taken back: the run answers as it was trained." if found["removed"] else "there was no calibration."
    from tunesmith.evaluation.calibration_page import score_rows, sentences

    return "\n".join([*sentences(found), table_of(*score_rows(found)), f"page: {folder / 'calibration.html'}"])
