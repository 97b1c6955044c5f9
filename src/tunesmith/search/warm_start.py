"""What earlier studies of similar tasks found: their best settings are the first that a search tries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.errors import RecipeError
from tunesmith.search.database import read_earlier
from tunesmith.search.space import Choices, Range, Space
from tunesmith.search.trials import StudyTrial


@dataclass(frozen=True)
class Warm:
    """The first trials of a search.

    Args:
        points: values by parameter, each study's best first; what an earlier study did not vary is left open.
        studies: of each earlier study its folder, the trials "taken", those "outside" of the space, with why, and how
            many were "repeated", or "left" because no more could come first.
    """

    points: Sequence[Mapping[str, Any]] = ()
    studies: Sequence[Mapping[str, Any]] = ()

    def sentences(self) -> list[str]:
        """Say what is taken from each study."""
        return [_sentence(one) for one in self.studies]


def read_warm(folders: Sequence[str], each: int, space: Space, most: int | None = None) -> Warm:
    """Take the best settings of earlier studies that the space allows.

    Args:
        folders: of the studies.
        each: so many of every study at most. [count]
        space: of the present one.
        most: trials that can come first; any number when None. [count]
    Returns:
        The first trials.
    Raises:
        CheckpointError: a folder holds no study that can be read.
        RecipeError: a study without a complete trial, or that shares no parameter with the space.
    """
    points, studies, nodes = list[dict[str, Any]](), list[dict[str, Any]](), space.parameters()
    for folder in folders:
        trials, higher = read_earlier(Path(folder).expanduser())
        ranked = sorted((one for one in trials if _done(one)), key=lambda one: one.key(higher))
        if not ranked:
            raise RecipeError(f"search.warm_start: no trial of {folder} was carried out to its end. Leave it out.")
        known = dict.fromkeys(name for one in ranked for name in one.parameters)
        if not known.keys() & nodes.keys():
            raise RecipeError(
                f"search.warm_start: {folder} varied {', '.join(known)}, and this search varies {', '.join(nodes)}: "
                "they share no parameter. Leave it out, or open the same fields."
            )
        found: dict[str, Any] = {"folder": str(folder), "taken": [], "repeated": 0, "left": 0, "outside": []}
        for one in ranked[:each]:
            point, why = _inside(one, nodes)
            if why:
                found["outside"].append({"trial": one.number, "why": why})
            elif point in points:
                found["repeated"] += 1
            elif len(points) == most:
                found["left"] += 1
            else:
                points.append(point)
                found["taken"].append({"trial": one.number, "value": one.outcome.value, "parameters": point})
        studies.append(found)
    return Warm(points, studies)


def _done(trial: StudyTrial) -> bool:
    return trial.outcome.state == "complete" and trial.same_as is None


def _inside(trial: StudyTrial, nodes: Mapping[str, Range | Choices]) -> tuple[dict[str, Any], str]:
    """Return what the space holds of a trial, and why the trial is outside of it, where it is."""
    point = {name: value for name, value in trial.parameters.items() if name in nodes}
    wrong = [f"{name}: {why}" for name, value in point.items() if (why := nodes[name].outside(value))]
    return point, "; ".join(wrong) if point else "it varied nothing that this search varies"


def _sentence(study: Mapping[str, Any]) -> str:
    taken, again, left, outside = (study[key] for key in ("taken", "repeated", "left", "outside"))
    said = f"warm start from {study['folder']}: {len(taken)} of its best trials come first"
    if again:
        said += f", {again} were there already"
    if left:
        said += f", {left} are more than the first generation has members"
    if outside:
        why = "; ".join(f"trial {one['trial']} ({one['why']})" for one in outside)
        said += f", {len(outside)} are outside of the space: {why}"
    return f"{said}."
