"""How the best recipe of a closed loop is carried out at the end: on all labelled rows, in several seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.errors import RecipeError
from tunesmith.core.files import read_json, write_json
from tunesmith.recipe.schema import Recipe
from tunesmith.search.attempts import Attempt
from tunesmith.search.changes import merged
from tunesmith.search.loop_wanted import LoopSettings, LoopWanted
from tunesmith.search.wanted import problems_of

_APART = (
    "validation rows do not train: data.test is a share of what trains, and would be drawn from them too; give a file"
)
_EARLY = 0.5  # share of the epochs up to which the best one speaks for fewer epochs


@dataclass(frozen=True)
class Final:
    """The run that a loop ends with.

    Args:
        best: number of the attempt that it carries out.
        values: all that it changes of the recipe as written, by dotted key.
        said: in which ways it is more than the attempt, in a sentence.
    """

    best: int
    values: Mapping[str, Any]
    said: str

    def keep(self, place: Path) -> None:
        """Write it, so that a loop that goes on ends with the same.

        Args:
            place: a JSON file.
        """
        write_json(place, {"best": self.best, "values": dict(self.values), "said": self.said})

    @classmethod
    def kept(cls, place: Path, best: int) -> Final | None:
        """Read it.

        Args:
            place: a JSON file.
            best: number of the best attempt now.
        Returns:
            What was written for that attempt; None where there is none.
        """
        found = read_json(place, dict) if place.exists() else {}
        return cls(**found) if found.get("best") == best else None


def final_of(wanted: LoopWanted, settings: LoopSettings, best: Attempt, members: int) -> Final:
    """Make the most of the best attempt that its recipe allows.

    Args:
        wanted: the recipe as written.
        settings: of the loop.
        best: the best attempt.
        members: runs of other seeds that time allows. [count]
    Returns:
        The first of these that makes a recipe: all rows and several seeds, all rows, several seeds, as it was tried.
        Rows of a validation file do not train where test is a share: it would be drawn from them too.
    """
    tried = wanted.load(best.values)
    apart = settings.use_validation and _test_is_drawn_beside(tried.recipe)
    refused = f" ({_APART})" if apart else ""
    members = members if tried.method.trains else 1  # seeds of what trains nothing answer alike
    for rows in (True, False) if settings.use_validation and not apart else (False,):
        for seeds in (members, 1) if members > 1 else (1,):
            values, said = dict(best.values), list[str]()
            if rows:
                values = merged(values, dict(_all_rows(tried.recipe, best)))
                said.append("validation rows train as well, now that they have chosen")
            if seeds > 1:
                values = merged(values, _seeds(tried.recipe.seed, seeds))
                said.append(f"the answers of {seeds} seeds are averaged")
            try:
                wanted.load(values)
            except RecipeError as error:
                refused = refused or f" (more is not possible: {_reasons(error)})"
                continue
            return Final(best.number, values, ("; ".join(said) or "as it was tried") + refused)
    return Final(best.number, dict(best.values), "as it was tried" + refused)


def _test_is_drawn_beside(recipe: Recipe) -> bool:
    """Say whether test is a share of what trains, and the rows that chose stand in a file of their own."""
    return isinstance(recipe.data.validation, str) and isinstance(recipe.data.test, float)


def _all_rows(recipe: Recipe, best: Attempt) -> Iterator[tuple[str, Any]]:
    """Let validation rows train; the last epoch is kept, as nothing can choose one or stop before it."""
    errors, patient = best.errors, recipe.training.patience is not None
    if isinstance(recipe.data.validation, str):
        yield "data.also_train", [*recipe.data.also_train, recipe.data.validation]
    if recipe.data.folds is not None:
        yield "data.folds", None
        yield "data.fold", 0
        yield "data.fold_repeats", 1
    yield "data.validation", None
    yield "training.best", "last"
    if patient:
        yield "training.patience", None
    if errors is None or errors.best_epoch == 0:
        return
    stopped = patient and errors.epochs < recipe.training.epochs
    if stopped or errors.best_epoch <= _EARLY * errors.epochs:
        yield "training.epochs", errors.best_epoch


def _reasons(error: RecipeError) -> str:
    head, *rest = problems_of(error)
    return " ".join(rest) or head


def _seeds(first: int, members: int) -> dict[str, Any]:
    return {"candidates": [{"seed": first + one} for one in range(members)], "combine": "average"}
