"""What to use for some data, on this machine, in this time: a ranked list of plans, and the recipe of the first one."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.errors import CheckpointError, RecipeError, TunesmithError
from tunesmith.core.files import write_text
from tunesmith.core.memory import available_bytes
from tunesmith.core.progress import Progress
from tunesmith.core.registry import components, find
from tunesmith.models.loading import choose_device
from tunesmith.recipe.loading import expanded, load_recipe, read_values, to_yaml
from tunesmith.runs.folder import check_new
from tunesmith.runs.labelling import Labelling
from tunesmith.runs.training import train_recipe
from tunesmith.search.budget import Budget
from tunesmith.search.expecting import Band, Scores
from tunesmith.search.guessing import Given, look, whole
from tunesmith.search.measuring import Bench, Cost
from tunesmith.search.proposals.base import Proposal

_FORM = re.compile(r"(\d+(?:\.\d+)?)\s*(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?", re.IGNORECASE)
_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
          "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}  # fmt: skip
_MIB = 2**20
_CHOSEN = ("method", "training", "candidates", "ensemble", "combine")  # keys that plans set
_FILES = ("validation", "test", "unlabelled", "unseen", "label_descriptions")  # keys of data that may be one
_WORK = 7e11  # parameters x tokens x 2: of the rows that are measured on
_FEWEST, _MOST = 1_000, 16_000  # tokens
_NEAR = 0.003  # of accuracy: plans as near as this are taken for equals, and the quicker one stands first


@dataclass(frozen=True)
class Limits:
    """What a run may take.

    Args:
        seconds: of it; None for any.
        memory_bytes: of the process, or on a GPU; None for what is free.
    """

    seconds: float | None
    memory_bytes: int | None

    @classmethod
    def read(cls, longest: str | float | None, memory: str | int | None) -> Limits:
        """Read what a user wrote.

        Args:
            longest: "30m", or seconds.
            memory: "8GB", or bytes.
        Returns:
            The limits.
        Raises:
            RecipeError: something else, or nothing at all.
        """
        return cls(None if longest is None else _seconds(longest), None if memory is None else _bytes(memory))


def _seconds(written: str | float) -> float:
    text = f"{written}s" if isinstance(written, int | float) else str(written)
    try:
        seconds = Budget.read(text).seconds
    except RecipeError:
        seconds = None
    if not seconds:
        raise RecipeError(f"time: '{written}' is no time. Write seconds, minutes or hours: 90s, 30m, 1h.")
    return seconds


def _bytes(memory: str | int) -> int:
    match = _FORM.fullmatch(str(memory).strip())
    bare = match is not None and not match[2] and isinstance(memory, str)  # a text without a unit
    found = 0 if match is None or bare else int(float(match[1]) * _UNITS[(match[2] or "B").lower()])
    if not found:
        raise RecipeError(f"memory: '{memory}' is no memory. Write megabytes or gigabytes: 800MB, 8GB, 8GiB.")
    return found


@dataclass(frozen=True)
class Plan:
    """One way, with what it will take and give.

    Args:
        proposal: the way.
        recipe: its keys.
        cost: predicted.
        band: of the score; None where it is unknown.
        standing: what orders plans.
        misfit: why it does not fit; empty where it does.
    """

    proposal: Proposal
    recipe: dict[str, Any]
    cost: Cost
    band: Band | None
    standing: float
    misfit: str

    def _reason(self) -> str:
        """Say what speaks for it, and where its place comes from when its score is unknown."""
        if self.band is not None:
            return f"{self.proposal.why}."
        if find("tasks", self.recipe["task"]["name"]).family != "labelling":
            return (
                f"{self.proposal.why}; scores of what a model writes are not predicted, and the order is the usual one."
            )
        known = self.proposal.published
        place = (
            f"results on {known[0].data} with {known[0].model} ({known[0].where}) order it"
            if known
            else "nothing published orders it"
        )
        return f"{self.proposal.why}; its score here is unknown, and {place}."

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "name": self.proposal.name,
            "fits": not self.misfit,
            "reason": self.misfit or self._reason(),
            "score": None if self.band is None else self.band.plain(),
            "seconds": self.cost.seconds,
            "seconds_by_stage": self.cost.parts,
            "step_seconds": self.cost.step_seconds,
            "memory_bytes": self.cost.memory_bytes,
            "memory": self.cost.note,
            "trainable_parameters": self.cost.trainable,
            "recipe": self.recipe,
        }


@dataclass(frozen=True)
class Advice:
    """Plans for some data, the best first.

    Args:
        given: what they are for.
        plans: those that fit first.
        left_out: why other ways were not planned, by name.
    """

    given: Given
    plans: list[Plan]
    left_out: dict[str, str]

    def plain(self, file: Path | None = None) -> dict[str, Any]:
        """Return everything as plain values.

        Args:
            file: where the first plan's recipe was written; None for nowhere.
        Returns:
            They.
        """
        plans = [plan.plain() for plan in self.plans]
        found = {"data": self.given.plain(), "plans": plans, "left_out": self.left_out, "chosen": plans[0]["name"]}
        return found if file is None else {**found, "file": str(file)}

    def yaml(self) -> str:
        """Write the first plan as a recipe."""
        best = self.plans[0]
        score = "unknown" if best.band is None else f"{100 * best.band.low:.1f} to {100 * best.band.high:.1f} %"
        why = " ".join("; ".join(self.given.why).split())  # a column's name may hold a line break
        head = (
            f"# Plan: {best.proposal.name}. {why}.\n"
            f"# Predicted on the machine that made it: {best.cost.seconds:,.0f} s, "
            f"{best.cost.memory_bytes / 1e6:,.0f} MB, accuracy {score}.\n"
        )
        return head + to_yaml(best.recipe)


def advise(
    data: str | Path,
    overrides: Sequence[str],
    model: str | None,
    limits: Limits,
    progress: Progress | None = None,
    output: Path | None = None,
) -> Advice:
    """Look at data, measure what ways of using a model take and give, and rank them.

    Args:
        data: file or folder.
        overrides: `key=value` texts of the recipe; what plans choose is not among them.
        model: name or folder; minilm for texts with labels when None.
        limits: of the run.
        progress: for the user.
        output: new file for the first plan's recipe; None for none.
    Returns:
        The plans.
    Raises:
        DataError: the data cannot be used, or do not say what they are for.
        RecipeError: a wrong setting, or limits that nothing can keep.
        CheckpointError: the model cannot be loaded.
    """
    progress = progress or Progress()
    if output is not None:
        _check_output(output)
    values = read_values({}, overrides, expanded)[2]
    _check_free(values)
    given = look(data, model, values)
    _check_memory(given, limits, values)
    ways = [kind() for kind in components("proposals").values()]
    ways = [way for way in ways if way.suits(given)]
    if not ways:
        raise RecipeError(f"task: no way to plan for {given.task} is known. Write a recipe for `tunesmith train`.")
    recipes = {way: _recipe(given, values, way.changes(given), limits) for way in ways}
    with progress.stage("plans", len(ways) + 1, "plans") as bar:
        bench = Bench(load_recipe(_recipe(given, values, {}, limits)), _tokens(given))
        scores = _scores(given, bench)
        bar(1)
        plans, left_out = list[Plan](), dict[str, str]()
        for way, recipe in recipes.items():
            try:
                plans.append(_plan(way, recipe, bench.cost(load_recipe(recipe)), scores, limits))
            except TunesmithError as error:
                left_out[way.name] = str(error)
            bar(1, way.name)
    _check_fit(plans, left_out, limits)
    advice = Advice(given, _ranked(plans), left_out)
    if output is not None:
        write_text(output, advice.yaml())
    return advice


def _check_free(values: Mapping[str, Any]) -> None:
    """Refuse to be told what is to be found out."""
    wrong = [key for key in ("task", "model", "data") if not isinstance(values.get(key) or {}, Mapping)]
    if wrong:
        raise RecipeError(f"{wrong[0]}: {values[wrong[0]]!r} is no mapping. Write keys below it, as data.label=COLUMN.")
    task = values.get("task")
    own = [key for key in values if key in _CHOSEN]
    own += [f"task.{key}" for key in task or {} if key != "name" and key.startswith("head")]
    if own:
        raise RecipeError(
            f"{own[0]}: the plans choose it. Keys of task, data, model, prompt and evaluation may be given; to "
            "train with your own, write a recipe for `tunesmith train`."
        )
    model, data = values.get("model"), values.get("data")
    if isinstance(model, Mapping) and "name" in model:
        raise RecipeError("model: name it with --model (model=... in Python).")
    if isinstance(data, Mapping) and "train" in data:
        raise RecipeError("data.train: it is the file or folder that is planned for, which the command names first.")


def _check_memory(given: Given, limits: Limits, values: Mapping[str, Any]) -> None:
    """Refuse a model that would not even load."""
    settings = values.get("model") or {}
    takes = int(given.parameters * _bytes_each(settings))
    free = available_bytes(choose_device(settings.get("device", "auto")))
    limit, said = (free, "free on this machine") if limits.memory_bytes is None else (limits.memory_bytes, "allowed")
    if takes > limit:
        raise RecipeError(
            f"memory: the model {given.model} alone takes {takes / 1e6:,.0f} MB, and {limit / 1e6:,.0f} MB are {said}. "
            "Choose a smaller model with --model, or allow more."
        )


def _bytes_each(settings: Mapping[str, Any]) -> float:
    """Say what a parameter takes at least: a quantised model's, where its linear maps are all of it. [bytes]"""
    bits = {"int8": 1.0, "int4": 0.5}.get(settings.get("quantization") or "")
    return bits or {"float64": 8.0, "bfloat16": 2.0, "float16": 2.0}.get(settings.get("dtype", ""), 4.0)


def _check_fit(plans: Sequence[Plan], left_out: Mapping[str, str], limits: Limits) -> None:
    """Refuse limits that nothing keeps."""
    if not plans:
        raise RecipeError(f"no plan can be carried out. The first reason: {next(iter(left_out.values()), 'none')}")
    if not all(plan.misfit for plan in plans):
        return
    able = [plan for plan in plans if plan.cost.fits_memory]
    if not able:
        least = min(plan.cost.memory_bytes for plan in plans)
        allowed = limits.memory_bytes
        hold = "what is free on this machine holds" if allowed is None else f"{allowed / 1e6:,.0f} MB hold"
        more = "Free some" if allowed is None else "Allow more"
        raise RecipeError(
            f"memory: {hold} none of the plans; the smallest takes {least / 1e6:,.0f} MB. {more}, or choose a smaller "
            "model with --model."
        )
    quickest = min(able, key=lambda plan: plan.cost.seconds)
    raise RecipeError(
        f"time: {limits.seconds:,.0f} s are shorter than anything takes; the quickest plan, {quickest.proposal.name}, "
        f"takes about {quickest.cost.seconds:,.0f} s. Give --time {math.ceil(1.3 * quickest.cost.seconds)}s or more, "
        "or fewer rows."
    )


def _tokens(given: Given) -> int:
    """How many tokens of a split are measured on: fewer with a larger model. [count]"""
    return int(min(_MOST, max(_FEWEST, _WORK / (2 * given.parameters))))


def _recipe(given: Given, values: Mapping[str, Any], changes: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    """Write a recipe: what was guessed, what the way sets, and what the user gave."""
    found: dict[str, Any] = {
        "task": {"name": given.task},
        "model": {"name": given.model},
        "data": dict(given.data),
        "method": {"name": "none" if given.family == "generating" else "lora"},
        "training": {},
        "seed": 0,
        "output": "runs/plan",
    }
    if limits.memory_bytes is not None:
        found["training"]["memory_limit"] = max(1, limits.memory_bytes // _MIB)
    for part in (changes, values):
        for key, value in part.items():
            own = found.get(key)
            found[key] = {**own, **value} if isinstance(own, dict) and isinstance(value, Mapping) else value
    if not found["training"]:
        del found["training"]
    files = {key: found["data"][key] for key in _FILES if isinstance(found["data"].get(key), str)}
    found["data"] |= {key: whole(name) for key, name in files.items()}
    return found


def _scores(given: Given, bench: Bench) -> Scores | None:
    family = bench.family
    if not isinstance(family, Labelling):
        return None
    rows = len(family.corpus.splits["train"].tokens) * bench.times["train"]
    return Scores(given, family, rows, bench.checked.recipe.seed)


def _plan(way: Proposal, recipe: dict[str, Any], cost: Cost, scores: Scores | None, limits: Limits) -> Plan:
    misfit = "" if cost.fits_memory else f"does not fit into memory: {cost.note}"
    if limits.seconds is not None and cost.seconds > limits.seconds:
        long = f"takes about {cost.seconds:,.0f} s, and {limits.seconds:,.0f} s are allowed"
        misfit = f"{misfit}; it {long}" if misfit else f"does not fit: it {long}."
    band = None if scores is None else scores.of(way)
    standing = float(-way.order) if scores is None else scores.standing(way)
    return Plan(way, recipe, cost, band, standing, misfit)


def _ranked(plans: Sequence[Plan]) -> list[Plan]:
    """Put what fits first, then what scores higher; of plans that score alike, the quicker one."""
    left = sorted(plans, key=lambda plan: (bool(plan.misfit), -plan.standing))
    found = list[Plan]()
    while left:
        alike = [plan for plan in left if not plan.misfit or left[0].misfit]
        alike = [plan for plan in alike if plan.standing >= left[0].standing - _NEAR]
        first = min(alike, key=lambda plan: plan.cost.seconds)
        found.append(first)
        left.remove(first)
    return found


def _check_output(output: Path) -> None:
    """Refuse a recipe file that is there, or has no folder."""
    if output.exists():
        raise CheckpointError(f"{output} exists and is not replaced. Choose another file with --output.")
    if not output.absolute().parent.is_dir():
        raise CheckpointError(f"the folder {output.absolute().parent} for {output.name} does not exist. Make it first.")


def carry_out_best(
    data: str | Path,
    overrides: Sequence[str],
    model: str | None,
    limits: Limits,
    output: Path,
    progress: Progress | None = None,
) -> Path:
    """Plan, say the plan, and carry the first one out.

    Args:
        data: file or folder.
        overrides: as in `advise`.
        model: as in `advise`.
        limits: of planning and run together.
        output: run folder.
        progress: for the user.
    Returns:
        The run folder.
    Raises:
        TunesmithError: as `advise` and `train_recipe`.
    """
    progress, began = progress or Progress(), time.perf_counter()
    if any(text.startswith("output=") for text in overrides):
        raise RecipeError("output: name the run's folder with --output (output=... in Python).")
    check_new(output.absolute())
    advice = advise(data, overrides, model, limits, progress)
    spent = time.perf_counter() - began
    able = [one for one in advice.plans if not one.misfit]
    able = [one for one in able if limits.seconds is None or spent + one.cost.seconds <= limits.seconds]
    if not able:
        raise RecipeError(
            f"time: planning took {spent:,.0f} s of {limits.seconds:,.0f} s, and what is left is shorter than any run "
            "takes. Give more with --time."
        )
    best = able[0]
    progress.say(f"plan: {best.proposal.name}, {best.proposal.why}; {'; '.join(advice.given.why)}")
    progress.say(f"planned in {spent:.1f} s; the run is to take about {best.cost.seconds:,.0f} s")
    return train_recipe(best.recipe, [f"output={output}"], progress=progress)
