"""What was done to rows of the data files, listed in the run row by row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tunesmith.data.cleaning.base import Verdict
from tunesmith.data.examples import Examples
from tunesmith.data.splitting import Index

LIST = "cleaning.jsonl"  # of a run


@dataclass(frozen=True)
class Finding:
    """What a step did to one row.

    Args:
        step: its name; leakage for what `data.leakage` drops.
        file: of the row.
        where: it stands there.
        what: changed, dropped, relabelled, weighted or listed.
        why: in a few words; empty for changed rows.
    """

    step: str
    file: str
    where: str
    what: str
    why: str = ""


def list_findings(step: str, verdicts: Mapping[int, Verdict], examples: Examples, index: Index) -> list[Finding]:
    """Say which rows a filter found.

    Args:
        step: its name.
        verdicts: by row number.
        examples: the file.
        index: (rows,), which rows of the file the numbers stand for.
    Returns:
        In the order of the rows.
    """

    def why(verdict: Verdict) -> str:
        other = "" if verdict.other is None else f" {examples.where[int(index[verdict.other])]}"
        return f"{verdict.why}{other}"

    return [
        Finding(step, examples.path, examples.where[int(index[row])], verdicts[row].what, why(verdicts[row]))
        for row in sorted(verdicts)
    ]
