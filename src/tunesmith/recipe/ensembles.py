"""Recipes whose members answer together: what is left open, and what does not go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.core.registry import components
from tunesmith.recipe.schema import Recipe
from tunesmith.recipe.schemes import trains_nothing


def with_combination(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what puts members together where a recipe with an ensemble does not say it.

    Args:
        values: of the recipe, shorthands written out.
    Returns:
        The values.
    """
    ensemble = values.get("ensemble")
    if "combine" in values or not isinstance(ensemble, Mapping):
        return dict(values)
    making = components("ensembles").get(str(ensemble.get("name")))
    return dict(values) if making is None else {**values, "combine": {"name": making.combine}}


def across_ensembles(recipe: Recipe, parts: Mapping[str, Any]) -> list[str]:
    """Check what candidates, members and their combination must agree on.

    Args:
        recipe: whose keys are each right.
        parts: the components that it names, by key.
    Returns:
        Sentences.
    """
    making, way, task = parts.get("ensemble"), parts["combine"], parts["task"]
    found = [] if making is None else _across_making(recipe, parts)
    if way.keeps == "one":
        return found
    name = type(way).name
    if making is None and len(recipe.candidates) < 2:
        found.append(
            f"combine: {name} needs at least two candidates, for example seeds, or an ensemble (ensemble=seeds)."
        )
    if task.family == "generating":
        found.append(f"combine: the task '{task.name}' writes text, which cannot be averaged. Set it to best.")
    if way.learns_from == "validation" and recipe.data.validation is None and recipe.data.folds is None:
        found.append(
            f"combine: {name} chooses by validation rows, and there are none. Give data.validation, or take average."
        )
    if way.parts:
        found.extend(_across_folds(recipe, parts, name))
    if way.keeps == "mean" and recipe.training.keep_best > 1:
        found.append(f"training.keep_best: of a mean of weights ({name}) there are no epochs. Leave it out.")
    return found


def _across_making(recipe: Recipe, parts: Mapping[str, Any]) -> list[str]:
    """Refuse members of recipes that make none, or train them in another way already."""
    making, task, found = parts["ensemble"], parts["task"], list[str]()
    if recipe.candidates:
        found.append("ensemble: candidates are given too, and both say what trains. Leave one of the two out.")
    if parts["combine"].keeps == "one":
        found.append("combine: best would keep one member of the ensemble. Take average, or leave ensemble out.")
    still = trains_nothing(recipe, parts["method"])
    if still:
        found.append(f"ensemble: {still}, so all members would be alike. Choose another method.")
    if making.own_rows and task.family != "labelling":
        found.append(
            f"ensemble: {type(making).name} draws or weights labelled rows, which the task '{task.name}' does not "
            "train on one by one. Take seeds or snapshots."
        )
    losses = [loss.name for loss in getattr(task, "loss_components", []) if not loss.weighable]
    if making.in_turn and losses:
        found.append(
            f"ensemble: {type(making).name} weights rows, and the loss {losses[0]} has none that could weigh more. "
            "Take cross-entropy, or bagging."
        )
    return found + [str(one) for one in making.problems(recipe)]


def _across_folds(recipe: Recipe, parts: Mapping[str, Any], name: str) -> list[str]:
    """Refuse out-of-fold answers of members that do not train on all rows in one training, or of no single label."""
    making, task, found = parts.get("ensemble"), parts["task"], list[str]()
    if making is not None and (making.own_rows or making.at_once):
        found.append(
            f"combine: {name} trains every member again on parts of the rows, which the ensemble "
            f"{type(making).name} does not allow. Take weighted, or ensemble=seeds, or candidates."
        )
    if task.family != "labelling" or getattr(task, "reject", None) is not None or recipe.data.soft_labels is not None:
        found.append(
            f"combine: {name} learns from one known label per training row; it goes with tasks with a label per row, "
            "without task.reject and data.soft_labels. Take weighted or average."
        )
    return found


def across_members(recipe: Recipe, way: Any, members: Sequence[Any]) -> list[str]:
    """Refuse a mean of weights of different shapes.

    Args:
        recipe: whose members they are.
        way: the combination.
        members: the recipe in each variant.
    Returns:
        Sentences.
    """
    if way.keeps != "mean":
        return []
    for number, one in enumerate(members):
        ours, first = one.method.describe(), members[0].method.describe()
        key = next((key for key in dict.fromkeys([*first, *ours]) if first.get(key) != ours.get(key)), None)
        if key is not None:
            return [
                f"candidates[{number}]: {type(way).name} averages weights number by number, and method.{key} is "
                f"{ours.get(key)!r} here and {first.get(key)!r} in candidates[0]. Give all the same method."
            ]
    return []
