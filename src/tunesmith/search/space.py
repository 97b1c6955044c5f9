"""A space: a recipe in which some fields are choices or ranges."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import yaml

from tunesmith.core.errors import RecipeError, unknown
from tunesmith.recipe.loading import expanded, read_values
from tunesmith.search.fields import Field, field_at

_RANGE, _CHOICES = ("low", "high", "log", "step"), "choices"
# What has to be the same in all trials: scores are compared, and rows that choose must not change.
_FIXED = ("output", "candidates", "ensemble", "combine", "evaluation", "training.best", "data.validation", "data.test",
          "data.seed", "data.folds", "data.fold", "data.fold_repeats")  # fmt: skip

_ALIKE = 1e-9  # of a number of steps from a whole one


class Draws(Protocol):
    """What gives every open field a value: a trial of optuna, or a grid's point."""

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        """Choose one of several."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Choose a whole number."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Choose a number."""


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included.

    Args:
        name: of the parameter.
        low: the smallest.
        high: the largest.
        log: whether equal ratios, not equal differences, are alike.
        step: between neighbours; None for any number.
        whole: whether only whole numbers are meant.
    """

    name: str
    low: float
    high: float
    log: bool
    step: float | None
    whole: bool

    def value(self, draws: Draws) -> Any:
        """Choose a number.

        Args:
            draws: chooses.
        Returns:
            It.
        """
        if self.whole:
            low, high, step = int(self.low), int(self.high), int(self.step or 1)
            return draws.suggest_int(self.name, low, high, step=step, log=self.log)
        return draws.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)

    def ends(self) -> list[Any]:
        """Return the values that are checked before anything is loaded: both ends."""
        return [int(self.low), int(self.high)] if self.whole else [self.low, self.high]

    def outside(self, value: Any) -> str:
        """Say why a value is none of these numbers.

        Args:
            value: of an earlier search.
        Returns:
            A few words; empty where it is one of them.
        """
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"{value} is no number"
        if not self.low <= value <= self.high:
            return f"{value:g} is not from {self.low:g} to {self.high:g}"
        step = self.step or (1 if self.whole else None)
        if step is not None and abs((value - self.low) / step - round((value - self.low) / step)) > _ALIKE:
            return f"{value:g} is no step of {step:g} from {self.low:g} on"
        return ""

    def spread(self, count: int) -> list[Any]:
        """Return the middles of equal parts, for a grid.

        Args:
            count: of parts. [count]
        Returns:
            They; every number of a range with steps that has no more of them.
        """
        step = self.step or (1 if self.whole else None)
        numbers = None if step is None else int((self.high - self.low) / step + 1e-9) + 1
        middles = (np.arange(count) + 0.5) / count
        if numbers is not None and (numbers <= count or not self.log):
            places = np.arange(numbers) if numbers <= count else np.unique((middles * numbers - 0.5).round())
            found = [min(float(self.low + (step or 1) * place), self.high) for place in places]
        else:
            found = [self._number(middle) for middle in middles]
        return list(dict.fromkeys(round(number) for number in found)) if self.whole else found

    def narrowed(self, value: float, share: float) -> Range:
        """Return a part of the range around a number.

        Args:
            value: in its middle, unless an end is nearer than that.
            share: of the width.
        Returns:
            The part; its ends are steps of this range where it has any.
        """
        low = min(max(self._place(value) - share / 2, 0.0), 1 - share)
        ends = self._number(low), self._number(low + share)
        step = self.step or (1 if self.whole else None)
        if step is not None:
            steps = [(end - self.low) / step for end in ends]
            ends = self.low + step * math.floor(steps[0]), min(self.low + step * math.ceil(steps[1]), self.high)
        return replace(self, low=ends[0], high=ends[1])

    def _place(self, value: float) -> float:
        """Say where a number lies, from 0 at the lowest to 1."""
        low, high, own = (math.log(one) if self.log else one for one in (self.low, self.high, value))
        return (own - low) / (high - low)

    def _number(self, place: float) -> float:
        """Return the number that lies there."""
        if self.log:
            return float(min(max(self.low * (self.high / self.low) ** place, self.low), self.high))
        return float(self.low + (self.high - self.low) * place)


@dataclass(frozen=True)
class Choices:
    """One of several values, which may hold open fields themselves.

    Args:
        name: of the parameter.
        options: by label.
    """

    name: str
    options: Mapping[str, Any]

    def value(self, draws: Draws) -> Any:
        """Choose an option, and values for what is open in it.

        Args:
            draws: chooses.
        Returns:
            A plain value.
        """
        return _filled(self.options[draws.suggest_categorical(self.name, list(self.options))], draws)

    def outside(self, value: Any) -> str:
        """Say why a value is none of the options.

        Args:
            value: of an earlier search.
        Returns:
            A few words; empty where it is one of them.
        """
        return "" if value in self.options else f"{value} is none of {', '.join(self.options)}"

    def ends(self) -> list[Any]:
        """Return every option with what is open in it at its first value."""
        return [_filled(option, _First()) for option in self.options.values()]


class _First:
    """Takes the first of everything."""

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        return choices[0]

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return low

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return low


def _filled(tree: Any, draws: Draws) -> Any:
    if isinstance(tree, Range | Choices):
        return tree.value(draws)
    return {key: _filled(value, draws) for key, value in tree.items()} if isinstance(tree, Mapping) else tree


@dataclass(frozen=True)
class Space:
    """The open fields of a recipe.

    Args:
        nodes: by the dotted key of the recipe.
    """

    nodes: Mapping[str, Range | Choices]

    def overrides(self, draws: Draws) -> list[str]:
        """Give every open field a value.

        Args:
            draws: chooses.
        Returns:
            `key=value` texts, as the command line takes them.
        """
        return [written(path, node.value(draws)) for path, node in self.nodes.items()]

    def ends(self) -> Iterator[tuple[str, list[str]]]:
        """Vary one field after the other over what it allows, the others at their first value.

        Returns:
            The field, and overrides of all fields.
        """
        first = {path: node.ends()[0] for path, node in self.nodes.items()}
        for path, node in self.nodes.items():
            for value in node.ends():
                yield path, [written(one, value if one == path else other) for one, other in first.items()]

    def points(self, each: int) -> Iterator[dict[str, Any]]:
        """Enumerate a grid; what is open inside an option is enumerated with that option only.

        Args:
            each: numbers of a range. [count]
        Returns:
            Values by parameter.
        """
        return _product(list(self.nodes.values()), each)

    def narrowed(self, point: Mapping[str, Any], share: float) -> Space:
        """Return the space around a point.

        Args:
            point: values by parameter.
            share: of the width of every range.
        Returns:
            Ranges around the point's numbers, and its choices alone.
        """
        return Space({path: _narrowed(node, point, share) for path, node in self.nodes.items()})

    def parameters(self) -> dict[str, Range | Choices]:
        """Return every open field, those inside of options too, by parameter."""
        return {node.name: node for tree in self.nodes.values() for node in _inside(tree)}


def _inside(tree: Any) -> Iterator[Range | Choices]:
    if isinstance(tree, Range | Choices):
        yield tree
    inner = tree.options.values() if isinstance(tree, Choices) else tree.values() if isinstance(tree, Mapping) else ()
    for value in inner:
        yield from _inside(value)


def _narrowed(tree: Any, point: Mapping[str, Any], share: float) -> Any:
    if isinstance(tree, Range):
        return tree.narrowed(point[tree.name], share)
    if isinstance(tree, Choices):
        label = point[tree.name]
        return Choices(tree.name, {label: _narrowed(tree.options[label], point, share)})
    return {key: _narrowed(one, point, share) for key, one in tree.items()} if isinstance(tree, Mapping) else tree


def _product(trees: Sequence[Any], each: int) -> Iterator[dict[str, Any]]:
    for parts in itertools.product(*(list(_of(tree, each)) for tree in trees)):
        yield {name: value for part in parts for name, value in part.items()}


def _of(tree: Any, each: int) -> Iterator[dict[str, Any]]:
    if isinstance(tree, Range):
        yield from ({tree.name: value} for value in tree.spread(each))
    elif isinstance(tree, Choices):
        for label, option in tree.options.items():
            yield from ({tree.name: label, **inner} for inner in _of(option, each))
    elif isinstance(tree, Mapping):
        yield from _product(list(tree.values()), each)
    else:
        yield {}


def written(path: str, value: Any) -> str:
    """Write a value as an override.

    Args:
        path: dotted key of the recipe.
        value: plain.
    Returns:
        `key=value`.
    Example:
        >>> written("method", {"name": "lora", "rank": 8}), written("training.learning_rate", 1e-5)
        ('method={name: lora, rank: 8}', 'training.learning_rate=1.0e-05')
    """
    text = yaml.safe_dump([value], default_flow_style=True, width=10**9, sort_keys=False, allow_unicode=True)
    return f"{path}={text.strip()[1:-1]}"


def read_space(recipe: str | Path | Mapping[str, Any], overrides: Sequence[str]) -> tuple[Space, dict[str, Any]]:
    """Find the open fields of a recipe.

    Args:
        recipe: a YAML file, or a mapping with the same keys.
        overrides: `key=value` texts; they win, and may be open themselves.
    Returns:
        The space, and the recipe's values as written.
    Raises:
        RecipeError: none is open, one is that cannot be, or a range is upside down.
    """
    source, _, values, _ = read_values(recipe, overrides, expanded)
    nodes: dict[str, Range | Choices] = {}
    _Reader(values).collect(values, "", nodes)
    if not nodes:
        raise RecipeError(
            f"{source}: nothing to search. Write choices or a range in place of a value, for example "
            "method.rank=[4, 8] or training.learning_rate={low: 1.0e-4, high: 1.0e-2, log: true}."
        )
    for path in nodes:
        fixed = next((key for key in _FIXED if path == key or path.startswith(f"{key}.")), None)
        if fixed is not None:
            raise RecipeError(
                f"{path}: it has to be the same in all trials, whose scores on the same rows are compared. Give it one "
                "value."
            )
    return Space(nodes), values


class _Reader:
    """Reads open fields; the recipe's own types say what a list and a mapping mean."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def collect(self, values: Mapping[str, Any], above: str, nodes: dict[str, Range | Choices]) -> None:
        """Find the open fields below a key."""
        for key, value in values.items():
            path = f"{above}{key}"
            found = self._node(value, path, path)
            if isinstance(found, Range | Choices):
                nodes[path] = found
            elif isinstance(value, Mapping):
                self.collect(value, f"{path}.", nodes)

    def _node(self, value: Any, path: str, name: str) -> Any:
        """Read one value; itself where it is not open."""
        field = field_at(path, self.values)
        if isinstance(value, Mapping) and set(value) == {_CHOICES} and isinstance(value[_CHOICES], list):
            return self._choices(value[_CHOICES], path, name)
        if isinstance(value, list) and not field.lists:
            return self._choices(value, path, name)
        if isinstance(value, Mapping) and not field.mappings and {"low", "high"} & set(value):
            return _range(value, path, name, field)
        return value

    def _choices(self, options: Sequence[Any], path: str, name: str) -> Choices:
        if not options:
            raise RecipeError(f"{path}: an empty list of choices. Give at least one.")
        found: dict[str, Any] = {}
        names = [_label(option, named=True) for option in options]
        for option, own in zip(options, names, strict=True):
            label = own if names.count(own) == 1 else _label(option, named=False)
            if label in found:
                raise RecipeError(f"{path}: the choice {label} stands there twice. Keep one.")
            found[label] = self._tree(option, path, f"{name}[{label}]")
        return Choices(name, found)

    def _tree(self, value: Any, path: str, name: str) -> Any:
        """Read what is open inside an option."""
        if not isinstance(value, Mapping):
            return value
        inner = {}
        for key, item in value.items():
            own = _Reader(_with(self.values, path, value))._node(item, f"{path}.{key}", f"{name}.{key}")
            inner[key] = self._tree(item, f"{path}.{key}", f"{name}.{key}") if own is item else own
        return inner


def _with(values: Mapping[str, Any], path: str, option: Any) -> dict[str, Any]:
    """Put an option in its place, so that the fields below it are those of the component it names."""
    key, _, rest = path.partition(".")
    inner = values.get(key)
    return {**values, key: _with(inner if isinstance(inner, Mapping) else {}, rest, option) if rest else option}


def _label(option: Any, named: bool) -> str:
    """Name an option: a component by its name where that is enough."""
    if named and isinstance(option, Mapping) and isinstance(option.get("name"), str):
        return str(option["name"])
    return written("", option).removeprefix("=")


def _is_number(value: Any) -> bool:
    """Say whether a value can be an end of a range: a number, no infinite one and none that is no number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _range(value: Mapping[str, Any], path: str, name: str, field: Field) -> Range:
    wrong = [key for key in value if key not in _RANGE]
    if wrong:
        raise RecipeError(f"{path}: {unknown('key of a range', str(wrong[0]), _RANGE)}")
    low, high, step = value.get("low"), value.get("high"), value.get("step")
    for key, number in (("low", low), ("high", high), ("step", step)):
        if not (_is_number(number) or (number is None and key == "step")):
            raise RecipeError(f"{path}: a range has numbers as low and high, for example {{low: 1, high: 8}}; "
                              f"{key} is {number!r}.")  # fmt: skip
    assert low is not None and high is not None
    if low >= high:
        one = f"low and high are both {low}, which leaves nothing to search. Write {path}={low}."
        turned = f"the range is upside down: low {low} is not below high {high}. Exchange them."
        raise RecipeError(f"{path}: {one if low == high else turned}")
    log = value.get("log", False)
    if not isinstance(log, bool):
        raise RecipeError(f"{path}: log is true or false, not {log!r}.")
    if log and (low <= 0 or step is not None):
        why = f"low is {low}" if low <= 0 else "it has a step"
        raise RecipeError(f"{path}: a range with log: true needs low above 0 and no step; {why}.")
    if step is not None and not 0 < step <= high - low:
        raise RecipeError(f"{path}: step {step} does not fit between low {low} and high {high}.")
    if step is not None and abs((high - low) / step - round((high - low) / step)) > _ALIKE:
        last = low + step * math.floor((high - low) / step)
        raise RecipeError(f"{path}: steps of {step} from low {low} do not meet high {high}. Write high: {last:.10g}.")
    numbers = [number for number in (low, high, step) if number is not None]
    whole = all(float(number).is_integer() for number in numbers) and field.whole(numbers)
    if field.only_whole and not whole:
        raise RecipeError(f"{path}: whole numbers are wanted; low, high and step are {numbers}.")
    return Range(name, low, high, log, step, whole)
