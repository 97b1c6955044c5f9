"""Rules of the user's domain that the trial which is taken has to keep to."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunesmith.core.errors import RecipeError, unknown
from tunesmith.recipe.loading import Checked
from tunesmith.search.trials import Outcome, StudyTrial

_RELATIONS: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}
_FACTS = ("trainable", "epochs")  # seconds depend on what else the machine does


@dataclass(frozen=True)
class Rule:
    """One rule.

    Args:
        name: of a metric, whose score on validation counts, or `trainable` or `epochs`.
        relation: "<=" or ">=".
        bound: that it is compared with.
    Example:
        >>> rule = Rule("recall", ">=", 0.9)
        >>> rule.keeps(Outcome("complete", scores={"recall": {"value": 0.85}}))
        False
        >>> str(rule)
        'recall >= 0.9'
    """

    name: str
    relation: str
    bound: float

    def __str__(self) -> str:
        return f"{self.name} {self.relation} {self.bound:.15g}"

    def value(self, outcome: Outcome) -> float:
        """Return what is compared.

        Args:
            outcome: of a trial that was carried out.
        Returns:
            The score or the fact.
        """
        return float(getattr(outcome, self.name) if self.name in _FACTS else outcome.scores[self.name]["value"])

    def keeps(self, outcome: Outcome) -> bool:
        """Say whether a trial keeps to the rule.

        Args:
            outcome: of a trial that was carried out.
        Returns:
            Whether it does; no where the score has no value.
        """
        return _RELATIONS[self.relation](self.value(outcome), self.bound)


def read_rules(texts: Sequence[str], metrics: Sequence[str]) -> list[Rule]:
    """Read rules.

    Args:
        texts: for example "recall >= 0.9" and "trainable <= 100000".
        metrics: that trials are scored by.
    Returns:
        The rules.
    Raises:
        RecipeError: a text is no rule, or names what trials do not have.
    """
    found = []
    for text in texts:
        parts = re.fullmatch(r"\s*([\w-]+)\s*(<=|>=)\s*([-+.\deE]+)\s*", text)
        try:
            rule = Rule(parts[1], parts[2], float(parts[3])) if parts else None
        except ValueError:
            rule = None
        if rule is None:
            raise RecipeError(
                f"search.rules: '{text}' is no rule. Write a name, <= or >=, and a number, for example 'recall >= 0.9'."
            )
        if rule.name not in (*metrics, *_FACTS):
            raise RecipeError(f"search.rules: {unknown('score', rule.name, [*metrics, *_FACTS])}")
        found.append(rule)
    return found


def excluded_by(rules: Sequence[Rule], checked: Checked) -> Rule | None:
    """Find a rule that a recipe breaks whatever its trial scores, which before training is known of `epochs` alone.

    Args:
        rules: any.
        checked: recipe of a trial.
    Returns:
        The first such rule; None where the trial may keep to all. Patience and `training.max_steps` may end training
        before `training.epochs`.
    """
    training = checked.recipe.training
    epochs = training.epochs if checked.method.trains else 0
    early = training.patience is not None or training.max_steps is not None
    for rule in rules:
        sure = rule.relation == ">=" or not early
        if rule.name == "epochs" and sure and not _RELATIONS[rule.relation](epochs, rule.bound):
            return rule
    return None


def broken_by_all(rules: Sequence[Rule], able: Sequence[Checked]) -> Rule | None:
    """Find a rule that every point of a space breaks whatever it scores.

    Args:
        rules: any.
        able: recipes of the space's ends, one field after the other varied, so that the most epochs of one may go with
            the method of another.
    Returns:
        The first such rule; None where there is none. Points may still break one rule or another.
    """
    most = max(one.recipe.training.epochs for one in able) if any(one.method.trains for one in able) else 0
    for rule in rules:
        if rule.name == "epochs" and rule.relation == ">=" and most < rule.bound:
            return rule
        if rule.relation == "<=" and all(excluded_by([rule], one) for one in able):
            return rule
    return None


def keeping(trials: Sequence[StudyTrial], rules: Sequence[Rule]) -> list[StudyTrial]:
    """Take the trials that keep to all rules.

    Args:
        trials: any.
        rules: all of them count.
    Returns:
        Complete trials, in the same order; all of them where there is no rule.
    """
    complete = [one for one in trials if one.outcome.state == "complete"]
    return [one for one in complete if all(rule.keeps(one.outcome) for rule in rules)]


def nearest(trials: Sequence[StudyTrial], rules: Sequence[Rule]) -> str:
    """Word what came nearest to each rule, where no trial keeps to all.

    Args:
        trials: complete ones.
        rules: all of them.
    Returns:
        For example "recall >= 0.9: at best 0.8712 (trial 3)".
    """
    said = []
    for rule in rules:
        best = (min if rule.relation == "<=" else max)(trials, key=lambda one: rule.value(one.outcome))
        said.append(f"{rule}: at best {rule.value(best.outcome):.6g} (trial {best.number})")
    return "; ".join(said)
