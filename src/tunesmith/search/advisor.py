"""The advisor's two verbs: say what to use for some data, and use it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.progress import Progress
from tunesmith.runs.run import Run
from tunesmith.search.advising import Limits, advise, carry_out_best


def plan(
    data: str | Path,
    overrides: Sequence[str] = (),
    *,
    model: str | None = None,
    time: str | float | None = None,
    memory: str | int | None = None,
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Say what to use for some data, on this machine, in this time: ranked plans with score, seconds and memory.

    Args:
        data: a file or folder; its task is guessed, unless `task=NAME` is among the overrides.
        overrides: `key=value` texts of task, data, model, prompt and evaluation.
        model: name or folder; minilm for texts with labels when None.
        time: most that a run may take: "30m", or seconds.
        memory: most that it may take: "8GB", or bytes.
        output: new recipe file of the first plan; None writes none.
        progress: where to show progress; bars on a terminal when None.
    Returns:
        "data" with what was guessed and why, "plans", the best first, "left_out", "chosen", and "file", where it is.
    Raises:
        TunesmithError: data that do not say what they are for, a wrong setting, or limits that nothing keeps.
    """
    place = None if output is None else Path(output).expanduser()
    return advise(data, overrides, model, Limits.read(time, memory), progress, place).plain(place)


def auto(
    data: str | Path,
    overrides: Sequence[str] = (),
    *,
    model: str | None = None,
    time: str | float | None = None,
    memory: str | int | None = None,
    output: str | Path = "runs/auto",
    progress: Progress | None = None,
) -> Run:
    """Guess what data are for, plan, say the plan, and carry the first one out.

    Args:
        data: as in `plan`.
        overrides: as in `plan`.
        model: as in `plan`.
        time: most that planning and the run may take.
        memory: as in `plan`.
        output: run folder; it must not exist.
        progress: where to show progress; bars on a terminal when None.
    Returns:
        The run, an ordinary one.
    Raises:
        TunesmithError: as `plan` and `train`.
    """
    return Run(carry_out_best(data, overrides, model, Limits.read(time, memory), Path(output).expanduser(), progress))
