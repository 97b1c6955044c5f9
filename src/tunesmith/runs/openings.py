"""How often a run's test rows were looked at: every look is a line in the run, and from the second on it is said."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tunesmith.core.errors import CheckpointError
from tunesmith.core.files import finite, read_json, write_text
from tunesmith.data.tokens import TokenRows
from tunesmith.evaluation.page import put_openings

FILE = "openings.jsonl"
SPLITS = "splits.json"

_log = logging.getLogger("tunesmith")


def row_hashes(tokens: TokenRows) -> list[str]:
    """Hash what the model reads of each row, so that copies are known again wherever they stand.

    Args:
        tokens: the rows.
    Returns:
        (rows,), 16 hexadecimal digits each.
    """
    return [hashlib.blake2b(tokens.content(row), digest_size=8).hexdigest() for row in range(len(tokens))]


def opening(by: str, file: str, rows: int, test_rows: int, scores: Mapping[str, float], began: str = "") -> str:
    """Write one look at the test rows as a line.

    Args:
        by: what looked: train, evaluate, compare or mix.
        file: that held the rows.
        rows: scored. [count]
        test_rows: of them that are in the run's test split. [count]
        scores: value by metric.
        began: when the run began that looks at the end of its training.
    Returns:
        JSON and a line end.
    """
    time = datetime.now(UTC).isoformat(timespec="seconds")
    line = {"time": time, "by": by, "file": file, "rows": rows, "test_rows": test_rows, "scores": dict(scores)}
    line |= {"began": began} if began else {}
    return json.dumps(finite(line), ensure_ascii=False) + "\n"


def read_openings(folder: Path) -> list[dict[str, Any]]:
    """Read every look at a run's test rows so far.

    Args:
        folder: of the run.
    Returns:
        In their order, training's own first; a line that a crash cut counts, with nothing known but "damaged".
    """
    try:
        lines = (folder / FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return list(_parsed(line for line in lines if line.strip()))


def kept_openings(folder: Path, began: str) -> str:
    """Return the looks that a run has had before it went on.

    Args:
        folder: of the run; it may still hold the files of an older one that the run replaces.
        began: when the run began.
    Returns:
        Whole lines; empty where the run has had none, or the files are of one that began at another time.
    """
    if began not in {one.get("began", "") for one in read_openings(folder)}:
        return ""
    lines = (folder / FILE).read_text(encoding="utf-8", errors="replace")
    return lines if lines.endswith("\n") else f"{lines}\n"


def _parsed(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            found = json.loads(line)
        except json.JSONDecodeError:
            found = None
        yield found if isinstance(found, dict) else {"damaged": line}


def worded(openings: int) -> str:
    """Say that test rows were looked at more than once.

    Args:
        openings: so many times. [count]
    Returns:
        A sentence; empty for one look or none.
    """
    if openings < 2:
        return ""
    return (
        f"the test split was opened {openings} times ({FILE} of the run lists when and by what): scores from repeated "
        "looks are optimistic as soon as anything was chosen by them. Keep fresh rows for the last word."
    )


def note_opening(folder: Path, by: str, file: str, tokens: TokenRows, scores: Mapping[str, float]) -> None:
    """Record a look at rows, where any of them is in the run's test split, and say that it was not the first.

    A folder that cannot be written is said, not an error: the answer is right all the same.

    Args:
        folder: of the run.
        by: what looks.
        file: that holds the rows.
        tokens: the rows.
        scores: value by metric.
    """
    test_rows = among_test(folder, tokens)
    if not test_rows:
        return
    line = opening(by, str(Path(file).absolute()), len(tokens), test_rows, scores)
    try:
        _append(folder / FILE, line)
        said = worded(len(read_openings(folder)))
        _tell_report(folder / "report.html", said)
    except (OSError, CheckpointError) as error:
        said = f"{test_rows} of the scored rows are in the run's test split; that could not be recorded: {error}"
    if said:
        _log.warning("%s", said)


def among_test(folder: Path, tokens: TokenRows) -> int:
    """Count rows that are in a run's test split.

    Args:
        folder: of the run.
        tokens: the rows.
    Returns:
        How many. [count]
    """
    known = set(_test_hashes(folder))
    return sum(one in known for one in row_hashes(tokens)) if known else 0


def _test_hashes(folder: Path) -> list[str]:
    test = read_json(folder / SPLITS, dict).get("test", {}) if (folder / SPLITS).is_file() else {}
    found: list[str] = test.get("hashes", [])
    return found


def _append(path: Path, line: str) -> None:
    """Add a line at the end and flush it; a line that a crash cut is ended first."""
    cut = path.is_file() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, (("\n" if cut else "") + line).encode("utf-8"))
        os.fsync(handle)
    finally:
        os.close(handle)


def _tell_report(path: Path, said: str) -> None:
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    after = put_openings(before, said)
    if after != before:
        write_text(path, after)
