"""Attributes decided by rules on measurements."""

from __future__ import annotations

import operator
import re
from typing import Any, ClassVar

import numpy as np
from pydantic import field_serializer, field_validator

from tunesmith.core.arrays import Array, Codes
from tunesmith.core.errors import RecipeError, unknown
from tunesmith.core.named import build_named
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.fewshot.attributes.base import AttributeWay, Fitted, likelihood
from tunesmith.fewshot.measurements.base import Measurements

_RULE = re.compile(r"\s*([\w.\- ]+?)\s*(<=|>=|<|>)\s*(-?\d+(?:\.\d+)?)\s*")
_SIGNS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
Condition = tuple[str, str, float]


@register("attributes")
class Rules(AttributeWay):
    """Each attribute holds where its rule does: comparisons of measurements with numbers, joined by `and`.

    How far a rule is to be trusted is counted on rows of seen classes: the share of rows with and of rows without the
    attribute in which it holds, with one row of each outcome added. Classes are scored by naive Bayes over the rules; a
    rule whose attribute no seen class has, or all have, is trusted as the others are on average.
    """

    name: ClassVar[str] = "rules"
    reads: ClassVar[Any] = "measurements"

    measurements: Any = setting(
        "figures", "What is measured: a component by name, or a mapping with its settings.", validate_default=True
    )
    rules: dict[str, str] = setting({}, "Rule of every attribute, for example {hole: 'holes >= 1 and aspect > 0.5'}.")

    @field_validator("measurements")
    @classmethod
    def _build(cls, value: Any) -> Any:
        return value if isinstance(value, Measurements) else build_named("measurements", value)

    @field_serializer("measurements")
    def _named(self, value: Measurements) -> dict[str, Any]:
        return value.describe()

    def check(self, attributes: tuple[str, ...]) -> None:
        """Refuse attributes without a rule, rules without an attribute, and rules that cannot be read.

        Args:
            attributes: of the table, in order.
        Raises:
            RecipeError: as said.
        """
        missing = [name for name in attributes if name not in self.rules]
        if missing:
            raise RecipeError(
                f"attributes.rules: the attribute '{missing[0]}' has no rule ({len(missing)} such attributes). Write "
                f"one, for example '{missing[0]}: MEASUREMENT > 0', or take the attribute out of the table."
            )
        foreign = [name for name in self.rules if name not in attributes]
        if foreign:
            raise RecipeError(f"attributes.rules: {unknown('attribute', foreign[0], attributes)}")
        for name, rule in self.rules.items():
            _parsed(name, rule, self.measurements.names())

    def decide(self, measured: Array) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Apply every rule.

        Args:
            measured: (rows, M), from `measurements.measure`.
        Returns:
            (rows, rules), in the order of `rules`.
        """
        names = self.measurements.names()
        columns = []
        for attribute, rule in self.rules.items():
            parts = [_SIGNS[sign](measured[:, names.index(what)], number) for what, sign, number in
                     _parsed(attribute, rule, names)]  # fmt: skip
            columns.append(np.logical_and.reduce(parts))
        return np.stack(columns, axis=1)

    def fit(self, rows: Array, codes: Codes, signatures: Array, seed: int = 0) -> FittedRules:
        """Count how often each rule holds with and without its attribute."""
        held = self.decide(rows)
        wanted = signatures[codes]
        with_it = (1 + (held * wanted).sum(0)) / (2 + wanted.sum(0))
        without = (1 + (held * (1 - wanted)).sum(0)) / (2 + (1 - wanted).sum(0))
        known, missing = wanted.sum(0) > 0, (1 - wanted).sum(0) > 0
        both = known & missing
        if both.any():
            with_it = np.where(known, with_it, with_it[both].mean())
            without = np.where(missing, without, without[both].mean())
        return FittedRules(self, with_it, without)


class FittedRules(Fitted):
    """Rules and how often they hold.

    Args:
        rules: settings.
        with_it: (A,), share of rows with the attribute in which its rule holds.
        without: (A,), share of rows without it in which its rule holds.
    """

    def __init__(self, rules: Rules, with_it: Array, without: Array) -> None:
        self.rules, self.with_it, self.without = rules, with_it, without

    def scores(self, rows: Array, signatures: Array) -> Array:
        """Add up log p(rule holds or not | attribute)."""
        held = self.rules.decide(rows)
        present = np.where(held, self.with_it, 1 - self.with_it)
        absent = np.where(held, self.without, 1 - self.without)
        return likelihood(present / (present + absent), signatures)


def _parsed(attribute: str, rule: str, names: list[str]) -> list[Condition]:
    found = []
    for part in re.split(r"\band\b", rule):
        match = _RULE.fullmatch(part)
        if match is None:
            raise RecipeError(
                f"attributes.rules.{attribute}: '{part.strip()}' is no comparison. Write a measurement, <, <=, > or "
                ">=, and a number, joined by and."
            )
        if match[1] not in names:
            raise RecipeError(f"attributes.rules.{attribute}: {unknown('measurement', match[1], names)}")
        found.append((match[1], match[2], float(match[3])))
    return found
